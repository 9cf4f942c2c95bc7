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
from pathlib import Path

import msgspec

from benchmarks.chaos.run import Aftermath, calm, storm

RUN_FOLDER = Path(".cache/benchmarks/chaos")
TELL_EVERY = 20
"""Faults."""
ENOUGH_VERSIONS = 600
"""By then an undisturbed fleet has learned what there is to learn."""
NOISE_CYCLES = 0.6
"""Twice the standard deviation of the error over partitions of the engines (docs/RELIABILITY.md)."""


class Result(msgspec.Struct, frozen=True):
    """The JSON line."""

    seed: int
    seconds: float
    storm: Aftermath
    calm_versions: int
    calm_score: float

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept."""
        score = self.storm.found.score
        if score - self.calm_score <= NOISE_CYCLES:
            return self.storm.broken
        return [*self.storm.broken, f"RMSE {score:.2f} beside {self.calm_score:.2f} undisturbed"]


def main() -> None:
    """Runs what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--nodes", type=int, default=8)
    asked = parser.parse_args()
    result = compare(asked.seed, asked.faults, asked.nodes)
    print(table(result))
    print(msgspec.json.encode(result).decode())
    sys.exit(1 if result.broken else 0)


def compare(seed: int, faults: int, nodes: int) -> Result:
    """One storm, and the calm beside it."""

    def tell(number: int) -> None:
        if number % TELL_EVERY == 0:
            print(f"{number} of {faults} faults", file=sys.stderr, flush=True)

    begun_at = time.monotonic()
    after = storm(RUN_FOLDER / f"storm-{seed}", seed, faults, nodes, tell)
    undisturbed = calm(RUN_FOLDER / f"calm-{seed}", seed, min(after.found.versions, ENOUGH_VERSIONS), nodes)
    return Result(seed, round(time.monotonic() - begun_at, 1), after, undisturbed.versions, undisturbed.score)


def table(result: Result) -> str:
    """For people."""
    after, found = result.storm, result.storm.found
    faults = ", ".join(f"{count} {kind}" for kind, count in sorted(after.faults.items()))
    lines = [
        f"faults                     {sum(after.faults.values())}: {faults}",
        f"all well again after       {after.settled_s:.0f} s",
        f"updates                    {found.accepted} accepted in {found.versions} versions",
        f"acknowledged, and lost     {found.acknowledged}, {found.lost}",
        f"folded twice               {found.twice}",
        f"replay of the ledger       {found.difference or 'bit for bit'}",
        f"nodes with other bits      {found.other_bits}",
        f"ended by themselves        {len(after.endings)}",
        f"RMSE (undisturbed)         {found.score:.2f} ({result.calm_score:.2f})",
        f"promises broken            {'; '.join(result.broken) or 'none'}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
