"""An aggregator's socket with a large fleet behind it that is never twice the same."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from aggregator.records import AggregatorStatus, NodeView, Released
from fieldfold.control.server import ControlServer
from fieldfold.wire.messages import NodePresence

EVERY_S = 3600.0


class Hall:
    """Each look finds that some nodes have moved on; a look stands for a second.

    Args:
        size: nodes.
    """

    def __init__(self, size: int) -> None:
        self._size, self.looks = size, 0

    def status(self) -> AggregatorStatus:
        """What they are at now."""
        self.looks += 1
        return AggregatorStatus(
            state="folding",
            detail="",
            federation="hall",
            connected=True,
            link="MQTT 5",
            term=1,
            task="turbofan",
            task_digest="0" * 64,
            version=self.looks,
            score=13.0 + 1 / self.looks,
            score_version=self.looks,
            score_median=14.0,
            score_worst_decile=19.0,
            classes=(),
            worst_class=None,
            better="lower",
            evaluation_trouble="",
            metric="RMSE",
            statistics_from=self._size,
            nodes_online=self._size,
            nodes_known=self._size,
            accepted=self.looks * self._size,
            rejected=self.looks,
            malformed=0,
            reasons={},
            staleness_median=2.0,
            staleness_max=9,
            bytes_received=self.looks * self._size * 1000,
            bytes_published=self.looks * 1000,
            float32_bytes=self.looks * self._size * 100_000,
            backup=None,
            proof=None,
            nodes=tuple(self._node(number) for number in range(self._size)),
            uptime_s=float(self.looks),
        )

    def _node(self, number: int) -> NodeView:
        name = f"press-{number:04d}"
        told = NodePresence(node=name, state="learning", version=self.looks - number % 5, loss=0.2, score=14.0)
        turn = (number * 7919 + self.looks) % self._size
        return NodeView(
            name,
            told,
            self.looks + turn,
            turn % 9,
            14_200 * turn,
            turn / 10,
            "",
            30 + turn / 40,
            "",
            turn % 5,
            1 + turn / 1000,
        )

    def versions(self) -> list[Released]:
        """The newest five hundred."""
        newest = self.looks
        return [
            Released(version, time.time() - newest + version, 13.0 + 1 / version, 40, 9000)
            for version in range(max(1, newest - 499), newest + 1)
        ]


def main(arguments: list[str]) -> None:
    """Serves a hall of so many nodes at a socket until it is ended."""
    path, size = arguments
    hall = Hall(int(size))
    voices = {f"press-{number:04d}": 1 / int(size) for number in range(int(size))}
    ControlServer(
        Path(path),
        hall.status,
        {},
        {"versions": hall.versions, "voices": lambda: voices, "looks": lambda: hall.looks},
    )
    while True:
        time.sleep(EVERY_S)


if __name__ == "__main__":
    main(sys.argv[1:])
