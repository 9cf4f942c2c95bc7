"""What a screen may ask for beside the status: all of it bounded, none of it changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from aggregator.federation import Federation
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import AuditView, Operation
from aggregator.records import Released, Taken
from fieldfold.errors import ControlError

VERSIONS_SHOWN = 500
VOICES_OVER = 200
DECISIONS_SHOWN = 300
SOUGHT = 20_000
"""Rejected updates are looked for among so many of the newest decisions."""
Name = Annotated[str, msgspec.Meta(max_length=64)]


class Views:
    """The table of views; called from the control server's threads."""

    def __init__(self, ledger: Ledger, federation: Federation) -> None:
        self._ledger, self._federation = ledger, federation

    def table(self) -> Mapping[str, Callable[..., Any]]:
        """Name -> view."""
        return {
            "versions": self.versions,
            "voices": self.voices,
            "decisions": self.decisions,
            "rejections": self.rejections,
            "operations": self.operations,
            "audit": self.audit,
        }

    def versions(self) -> list[Released]:
        """The newest versions of the present model, oldest first."""
        task = self._task
        with self._ledger.turn:
            return self._ledger.released_lately(task, VERSIONS_SHOWN)

    def voices(self) -> dict[str, float]:
        """Node -> its share of the weights in the newest versions' steps; they add up to 1."""
        task = self._task
        with self._ledger.turn:
            weights = self._ledger.weights_lately(task, VOICES_OVER)
        total = sum(weights.values())
        return {node: weight / total for node, weight in weights.items()} if total > 0 else {}

    def rejections(self) -> list[Taken]:
        """The newest decisions against an update, newest first."""
        with self._ledger.turn:
            return self._ledger.rejected_lately(DECISIONS_SHOWN, SOUGHT)

    def decisions(self, node: str = "") -> list[Taken]:
        """The newest decisions, newest first: all, or those on one node's updates."""
        try:
            node = msgspec.convert(node, Name)
        except msgspec.ValidationError as error:
            raise ControlError(f"node: {error}") from None
        with self._ledger.turn:
            if node:
                return self._ledger.taken_of(node, DECISIONS_SHOWN)
            return self._ledger.taken_lately(DECISIONS_SHOWN)

    def operations(self) -> list[Operation]:
        """What people asked for, newest first."""
        with self._ledger.turn:
            return self._ledger.operations()

    def audit(self, after: int = 0) -> AuditView:
        """What people asked for, behind the row `after`, with its place in the chain; the oldest first."""
        if not isinstance(after, int):
            raise ControlError("after: expected a whole number")
        with self._ledger.turn:
            folder = str(self._ledger.path.resolve().parent)
            return AuditView(self._ledger.name, self._ledger.operations_end(), folder, self._ledger.sealed(after))

    @property
    def _task(self) -> str:
        model = self._federation.model
        return model.task if model is not None else ""
