"""The methods a configuration may name."""

from __future__ import annotations

from typing import TypeAlias

from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedavg import FedAvg
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff

AnyMethod: TypeAlias = FedAvg | FedAsync | FedBuff | RateCorrectedFedBuff
