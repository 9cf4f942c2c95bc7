"""What a screen may ask for beside the status: all of it bounded, none of it changes anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

import msgspec

from fieldfold.control.recent import Slice
from fieldfold.errors import ControlError
from fieldfold.logs import Entry, Tail
from fieldfold.sensors.schema import DataSchema
from fieldfold.sensors.statistics import FeatureSums, Normalisation
from node_app.courier import Courier
from node_app.learner import Learner
from node_app.records import Adoption, Carried, Decided, Drift, Run
from node_app.store import Store

MAX_DECISIONS = 200
Number = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


def drift(schema: DataSchema, sums: FeatureSums, fleet: Normalisation) -> tuple[Drift, ...]:
    """Of each feature that is a number and has a value here, in the schema's order."""
    found = []
    for position, place in enumerate(schema.numeric):
        count = sums.count[position]
        if count > 0:
            mean = sums.total[position] / count
            std = max(0.0, sums.total_of_squares[position] / count - mean * mean) ** 0.5
            name = schema.features[place].name
            found.append(Drift(name, mean, std, fleet.mean[position], fleet.std[position]))
    return tuple(found)


class Views:
    """The table of views; called from the control server's threads.

    Args:
        drift: gives the present drift; nothing where data or model are not there.
    """

    def __init__(
        self, store: Store, courier: Courier, learner: Learner, tail: Tail, drift: Callable[[], tuple[Drift, ...]]
    ) -> None:
        self._store, self._courier, self._learner, self._tail, self._drift = store, courier, learner, tail, drift

    def table(self) -> Mapping[str, Callable[..., Any]]:
        """Name -> view."""
        return {
            "history": self.history,
            "outbox": self.outbox,
            "log": self.log,
            "runs": self.runs,
            "adoptions": self.adoptions,
            "drift": self._drift,
        }

    def history(self) -> list[Decided]:
        """The newest decisions on updates, newest first."""
        return self._store.history(MAX_DECISIONS)

    def outbox(self) -> list[Carried]:
        """What waits for its receipt, oldest first."""
        found = []
        for update in self._store.outbox():
            chunks, chunk_bytes = self._courier.carried(update.digest)
            found.append(Carried(update, chunks, -(-update.size_bytes // chunk_bytes) if chunk_bytes else 0))
        return found

    def log(self, after: int = 0) -> Slice[Entry]:
        """What the daemon has said since line `after`."""
        return self._tail.entries.after(_number(after))

    def runs(self, after: int = 0) -> Slice[Run]:
        """Local runs since number `after`."""
        return self._learner.runs.after(_number(after))

    def adoptions(self, after: int = 0) -> Slice[Adoption]:
        """Released models that were evaluated here, since number `after`."""
        return self._learner.adoptions.after(_number(after))


def _number(value: object) -> int:
    try:
        return msgspec.convert(value, Number)
    except msgspec.ValidationError as error:
        raise ControlError(f"after: {error}") from None
