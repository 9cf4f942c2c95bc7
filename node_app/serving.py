"""Which model predictions are made with: the best on the data here, or the one that somebody pinned."""

from __future__ import annotations

import threading

import msgspec

from fieldfold.errors import ControlError
from fieldfold.task.manifest import Metric
from node_app.adopt import Served, adopt


class Serving:
    """Thread-safe: the learner offers models, people pin them.

    Attributes:
        served: what predictions are made with; None before the first model.
        former: what was served before; None where there was nothing, or it is forgotten.
        pinned: whether `served` stays whatever comes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.served: Served | None = None
        self.former: Served | None = None
        self.pinned = False

    def offer(self, newcomer: Served, metric: Metric) -> None:
        """Serves a model that is better here, unless another one is pinned."""
        with self._lock:
            taken = self.served if self.pinned and self.served is not None else adopt(newcomer, self.served, metric)
            if taken is not self.served:
                self.former, self.served = self.served, taken

    def shown(self) -> dict[str, object]:
        """What Progress has of it."""
        with self._lock:
            served, former = self.served, self.former
            return {
                "served_version": served.version if served else None,
                "served_score": served.score if served else None,
                "served_personal": served is not None and served.personal,
                "former_version": former.version if former else None,
                "pinned": self.pinned,
            }

    def judged_anew(self, score: float | None) -> None:
        """The data has changed, and with it the score of what is served."""
        with self._lock:
            if self.served is not None:
                self.served = msgspec.structs.replace(self.served, score=score)

    def take_up(self, served: Served, former: Served | None, *, pinned: bool) -> None:
        """Goes on where a store left it."""
        with self._lock:
            self.served, self.former, self.pinned = served, former, pinned

    def pin(self) -> str:
        """Serves the present model whatever comes.

        Raises:
            ControlError: when there is none.
        """
        with self._lock:
            served = self._present()
            self.pinned = True
            return f"{served.name} is served until it is unpinned"

    def unpin(self) -> str:
        """Serves the better one again, from the next version on."""
        with self._lock:
            was, self.pinned = self.pinned, False
            return "from the next version on, the better one is served" if was else "nothing is pinned"

    def roll_back(self) -> str:
        """Serves what was served before, and pins it: the next version might be the same mistake.

        Raises:
            ControlError: when nothing was.
        """
        with self._lock:
            served = self._present()
            if self.former is None:
                raise ControlError(f"nothing was served here before {served.name}", "pin it, or wait")
            self.served, self.former, self.pinned = self.former, served, True
            return f"{self.served.name} is served again, until it is unpinned"

    def _present(self) -> Served:
        if self.served is None:
            raise ControlError("no model is served yet", "the first one comes with the first version")
        return self.served
