"""One fleet through a storm, and the same one undisturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from benchmarks.chaos.audit import Findings, audit
from benchmarks.chaos.fleet import NEEDS_SOMEBODY, ChaosFleet, Ending
from benchmarks.chaos.plan import draw
from benchmarks.chaos.storm import LOOK_S, Storm
from examples.turbofan import demo
from examples.turbofan.partition import partition
from fieldfold.errors import FieldfoldError

STEPS_PER_S, CALM_STEPS_PER_S = 60.0, 120.0
SETTLE_S = 120.0
"""A gateway whose disk failed looks again after 60 s; so does one whose link went down many times in a row."""
PROFILE = "int8"
"""Large updates, in several pieces."""


class Aftermath(msgspec.Struct, frozen=True):
    """How a fleet stands after a storm.

    Attributes:
        faults: by kind.
        settled_s: until everybody was well, after the last fault had ended.
        endings: of programs that ended though nobody killed them.
        troubles: who was not well even then.
    """

    faults: dict[str, int]
    settled_s: float
    found: Findings
    endings: list[Ending]
    troubles: list[str]

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = self.found
        counts = {
            "acknowledged updates lost": found.lost,
            "updates folded twice": found.twice,
            "runs begun anew": found.runs - 1,
            "stores set aside": found.set_aside,
            "nodes with other bits": found.other_bits,
            "programs that need a human": sum(each.code in NEEDS_SOMEBODY for each in self.endings),
            "troubles that stayed": len(self.troubles),
        }
        said = [f"{number} {what}" for what, number in counts.items() if number]
        return [*said, f"the ledger does not replay: {found.difference}"] if found.difference else said


def storm(folder: Path, seed: int, faults: int, nodes: int, tell: Callable[[int], None]) -> Aftermath:
    """Runs a fleet through so many faults; `tell` is told how many there were."""
    with _fleet(folder, seed, nodes, STEPS_PER_S) as fleet:
        fleet.begin()
        reach(fleet, 1)
        raging = Storm(fleet)
        raging.rage(draw(seed, faults, list(fleet.engines)), tell)
        settled_s = settle(fleet)
        troubles = fleet.troubles()
        fleet.stop()
        return Aftermath(
            dict(raging.counts),
            round(settled_s, 1),
            audit(fleet.folder, list(fleet.engines)),
            fleet.endings,
            troubles,
        )


def calm(folder: Path, seed: int, versions: int, nodes: int) -> Findings:
    """The same fleet, at a quicker pace, up to a version."""
    with _fleet(folder, seed, nodes, CALM_STEPS_PER_S) as fleet:
        fleet.begin()
        reach(fleet, versions)
        fleet.stop()
        return audit(fleet.folder, list(fleet.engines))


def _fleet(folder: Path, seed: int, nodes: int, steps_per_s: float) -> ChaosFleet:
    engines = dict(list(partition(demo.PARTITION_SEED).items())[:nodes])
    pace = dict.fromkeys(engines, steps_per_s)
    return ChaosFleet(folder, demo.BUNDLE, engines, max_steps_per_s=pace, profile=PROFILE, seed=seed)


def reach(fleet: ChaosFleet, version: int, patience_s: float = 900.0) -> None:
    """Waits for a version.

    Raises:
        FieldfoldError: when it does not come.
    """
    deadline = time.monotonic() + patience_s
    while ((fleet.aggregator_status() or {}).get("version") or 0) < version:
        if time.monotonic() > deadline:
            raise FieldfoldError(f"version {version} did not come: {fleet.troubles()}", f"see {fleet.folder}")
        fleet.look_after()
        time.sleep(LOOK_S)


def settle(fleet: ChaosFleet) -> float:
    """Waits until all is well by itself; gives the seconds that took."""
    fleet.heal()
    begun_at = time.monotonic()
    while fleet.troubles() and time.monotonic() < begun_at + SETTLE_S:
        fleet.look_after()
        time.sleep(LOOK_S)
    return time.monotonic() - begun_at
