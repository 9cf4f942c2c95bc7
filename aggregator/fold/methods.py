"""The methods a configuration may name."""

from __future__ import annotations

from typing import TypeAlias

from aggregator.fold.ace import ACE
from aggregator.fold.ca2fl import CA2FL
from aggregator.fold.deadline import Deadline
from aggregator.fold.fadas import FADAS
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold.refereed import Refereed
from aggregator.fold.ringmaster import Ringmaster
from aggregator.fold.slots import Slots

AnyMethod: TypeAlias = (
    FedAvg
    | FedAsync
    | FedBuff
    | RateCorrectedFedBuff
    | CA2FL
    | ACE
    | Slots
    | Refereed
    | FADAS
    | Ringmaster
    | Deadline
)
