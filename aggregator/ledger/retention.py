"""How much of the past is kept: old updates and deltas are dropped, a little at a time, while the aggregator runs.

The log is given up to the place of a checkpoint, the floor, which only rises. What recovery needs lies behind the
newest but one, and the floor never rises above that.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Place

DAY_S = 86_400.0
STEADY_S = 3600.0
JUMP_S = 60.0
ROWS_A_STEP = 500
PAGES_A_STEP = 500
DECISIONS_KEPT = 1_000_000
"""The newest rows of the log stay when their updates are dropped, so that repeated updates get the same receipt."""


class RetentionConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[retention]` table; 0 is no limit.

    Attributes:
        max_age_days: updates and deltas are dropped when a checkpoint behind them is older than this.
        max_size_bytes: the oldest are dropped while the ledger holds more than this.
    """

    max_age_days: Annotated[float, msgspec.Meta(ge=0)] = 90.0
    max_size_bytes: Annotated[int, msgspec.Meta(ge=0)] = 10_000_000_000


class SteadyClock:
    """Whether the wall clock can be trusted to tell an age: it has gone with the machine's own for a while."""

    def __init__(self) -> None:
        self._ahead_s: float | None = None
        self._since_s = 0.0

    def is_steady(self, now_s: float, running_s: float) -> bool:
        """True when no jump was seen for STEADY_S.

        Args:
            now_s: time since 1970.
            running_s: of a clock that only runs, such as time.monotonic.
        """
        ahead_s = now_s - running_s
        if self._ahead_s is None or abs(ahead_s - self._ahead_s) > JUMP_S:
            self._since_s = running_s
        self._ahead_s = ahead_s
        return running_s - self._since_s >= STEADY_S


class Retention:
    """Keeps one ledger within its limits.

    Args:
        deltas_kept: how many versions before the floor keep their deltas, for gateways and methods that look back.
    """

    def __init__(self, config: RetentionConfig, ledger: Ledger, deltas_kept: int) -> None:
        self._config, self._ledger, self._deltas_kept = config, ledger, deltas_kept
        self._dropped: dict[tuple[str, str], int] = {}
        self._clock = SteadyClock()

    def step(self, now_s: float, running_s: float) -> bool:
        """Drops a little; whether there is more to drop.

        Args:
            now_s: time since 1970; while it jumps, nothing is dropped for its age.
            running_s: of a clock that only runs, such as time.monotonic.

        Raises:
            StoreError: when it cannot be written.
        """
        dated = self._config.max_age_days > 0 and self._clock.is_steady(now_s, running_s)
        older_than_s = now_s - self._config.max_age_days * DAY_S if dated else None
        with self._ledger.transaction():
            more = self._forget()
            for task in self._ledger.tasks():
                more |= self._compact(task, older_than_s)
        self._ledger.shrink(PAGES_A_STEP)
        return more

    def _compact(self, task: str, older_than_s: float | None) -> bool:
        floor = self._ledger.floor(task)
        place = new_floor(
            floor,
            self._ledger.dated_checkpoints(task),
            older_than_s=older_than_s,
            too_large=0 < self._config.max_size_bytes < self._ledger.used_bytes(),
        )
        left = self._drop_before_floor(task)
        if place != floor and not left:
            self._ledger.raise_floor(task, place, max(0, place.version - self._deltas_kept))
            return True
        return left

    def _drop_before_floor(self, task: str) -> bool:
        """Drops some of what was given up; what lies before `_dropped` was looked through already."""
        left = False
        for kind, drop, end in (
            ("updates", self._ledger.drop_updates, self._ledger.floor(task).contribution),
            ("deltas", self._ledger.drop_deltas, self._ledger.oldest_base(task)),
        ):
            last = drop(task, self._dropped.get((kind, task), 0), ROWS_A_STEP)
            self._dropped[kind, task] = end if last is None else last
            left |= last is not None
        return left

    def _forget(self) -> bool:
        """Drops the rows of decisions that lie far behind, before every floor."""
        floors = [self._ledger.floor(task).contribution for task in self._ledger.tasks()]
        return self._ledger.forget_decisions(
            min([self._ledger.newest_contribution() - DECISIONS_KEPT, *floors]), ROWS_A_STEP
        )


def new_floor(
    floor: Place, checkpoints: list[tuple[Place, float]], *, older_than_s: float | None, too_large: bool
) -> Place:
    """Where the log is to begin: at the newest checkpoint that is old enough, or at the next one to make room.

    Args:
        floor: where it begins now.
        checkpoints: with the times at which they were written, oldest first; the newest is never chosen.
        older_than_s: the time before which nothing is kept; None for no limit.
        too_large: whether there is too much.
    """
    ahead = [each for each in checkpoints[:-1] if each[0].contribution > floor.contribution]
    old = [place for place, written_s in ahead if older_than_s is not None and written_s <= older_than_s]
    if old:
        return old[-1]
    return ahead[0][0] if too_large and ahead else floor
