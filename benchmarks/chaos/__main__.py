"""A fleet of gateways, an aggregator and a Mosquitto under random faults, and the same fleet undisturbed beside it.

    python -m benchmarks.chaos --seed 1 --faults 200

Real processes, real kill -9, TLS. Whatever ends is started again, as a service manager would. Afterwards no update
that a gateway holds an acknowledgement for may be missing from the ledger, none may be in it twice, the ledger must
replay bit for bit, everybody must hold the bits that were released, nothing may need a human, and the model must be
as good as that of the undisturbed fleet. Prints a table and one JSON line; exit code 1 where a promise was broken.
"""

from __future__ import annotations

import argparse
import sys
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

RUN_FOLDER = Path(".cache/benchmarks/chaos")
STEPS_PER_S, CALM_STEPS_PER_S = 60.0, 120.0
TELL_EVERY = 20
"""Faults."""
SETTLE_S = 120.0
"""An update whose receipt was lost is sent again after 20 s, then 40 s."""
ENOUGH_VERSIONS = 300
"""By then an undisturbed fleet has learned what there is to learn."""
NOISE_CYCLES = 0.6
"""Twice the standard deviation of the error over partitions of the engines (docs/RELIABILITY.md)."""
FOLD = demo.FOLD.replace("buffer_size = 6", "buffer_size = 4")


class Result(msgspec.Struct, frozen=True):
    """The JSON line."""

    seed: int
    faults: dict[str, int]
    seconds: float
    settled_s: float
    found: Findings
    calm_score: float
    calm_versions: int
    endings: list[Ending]
    troubles: list[str]

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        found = self.found
        counts = {
            "acknowledged updates lost": found.lost,
            "updates folded twice": found.twice,
            "runs begun": found.runs - 1,
            "stores set aside": found.set_aside,
            "nodes with other bits": found.other_bits,
            "processes that need a human": sum(each.code in NEEDS_SOMEBODY for each in self.endings),
            "troubles that stayed": len(self.troubles),
        }
        said = [f"{number} {what}" for what, number in counts.items() if number]
        if found.difference:
            said.append(f"the ledger does not replay: {found.difference}")
        if not found.score - self.calm_score <= NOISE_CYCLES:
            said.append(f"RMSE {found.score:.2f} beside {self.calm_score:.2f} undisturbed")
        return said


def run(seed: int, faults: int, nodes: int, tell: Callable[[str], None]) -> Result:
    """One storm, and the calm beside it."""
    engines = dict(list(partition(demo.PARTITION_SEED).items())[:nodes])
    begun_at = time.monotonic()
    with ChaosFleet(
        RUN_FOLDER / f"storm-{seed}",
        demo.BUNDLE,
        engines,
        max_steps_per_s=dict.fromkeys(engines, STEPS_PER_S),
        fold=FOLD,
        seed=seed,
    ) as fleet:
        fleet.begin()
        reach(fleet, 1)
        storm = Storm(fleet)
        storm.rage(
            draw(seed, faults, list(engines)),
            lambda number: None if number % TELL_EVERY else tell(f"{number} of {faults} faults"),
        )
        tell("the storm is over")
        settled_s = settle(fleet)
        troubles = fleet.troubles()
        fleet.stop()
        found = audit(fleet)
        endings = fleet.endings
    tell("the same fleet, undisturbed")
    with ChaosFleet(
        RUN_FOLDER / f"calm-{seed}",
        demo.BUNDLE,
        engines,
        max_steps_per_s=dict.fromkeys(engines, CALM_STEPS_PER_S),
        fold=FOLD,
        seed=seed,
    ) as calm:
        calm.begin()
        reach(calm, min(found.versions, ENOUGH_VERSIONS))
        calm.stop()
        undisturbed = audit(calm)
    return Result(
        seed=seed,
        faults=dict(storm.counts),
        seconds=round(time.monotonic() - begun_at, 1),
        settled_s=round(settled_s, 1),
        found=found,
        calm_score=undisturbed.score,
        calm_versions=undisturbed.versions,
        endings=endings,
        troubles=troubles,
    )


def reach(fleet: ChaosFleet, version: int, patience_s: float = 300.0) -> None:
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
    """Waits until all is well by itself, and what was trained has its receipts; gives the seconds that took."""
    fleet.heal()
    begun_at = time.monotonic()
    while time.monotonic() < begun_at + SETTLE_S:
        fleet.look_after()
        if not fleet.troubles():
            break
        time.sleep(LOOK_S)
    well_s = time.monotonic() - begun_at
    fleet.pause()
    while time.monotonic() < begun_at + SETTLE_S:
        if not sum((fleet.node_status(name) or {"outbox": 1})["outbox"] for name in fleet.engines):
            break
        time.sleep(LOOK_S)
    return well_s


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=8)
    asked = parser.parse_args()
    result = run(asked.seed, asked.faults, asked.nodes, lambda words: print(words, file=sys.stderr, flush=True))
    print(table(result))
    print(msgspec.json.encode(result).decode())
    sys.exit(1 if result.broken else 0)


def table(result: Result) -> str:
    """For people."""
    found = result.found
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(result.faults.items()))
    lines = [
        f"faults                     {sum(result.faults.values())}: {faults}",
        f"all well again after       {result.settled_s:.0f} s",
        f"updates                    {found.accepted} accepted in {found.versions} versions",
        f"acknowledged, and lost     {found.acknowledged}, {found.lost}",
        f"folded twice               {found.twice}",
        f"replay of the ledger       {found.difference or 'bit for bit'}",
        f"nodes with other bits      {found.other_bits}",
        f"ended by themselves        {len(result.endings)}",
        f"RMSE (undisturbed)         {found.score:.2f} ({result.calm_score:.2f})",
        f"promises broken            {'; '.join(result.broken) or 'none'}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
