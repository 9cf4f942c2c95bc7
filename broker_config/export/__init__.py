"""`fieldfold broker export`: the table of rights, and what else differs, in the words of other brokers; pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from broker_config.export.aws import aws
from broker_config.export.emqx import emqx
from broker_config.export.hivemq import hivemq

EXPORTS: Final[Mapping[str, Callable[..., str]]] = {"emqx": emqx, "hivemq": hivemq, "aws": aws}
"""Broker -> text for a federation's name and, where there are any, the roles of its sites."""
