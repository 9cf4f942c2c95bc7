"""Is learning together worth it? RMSE of the federated turbofan model beside each gateway alone and the pooled data.

Real processes over a real broker, five partitions of the engines over twelve gateways, one gateway ten times slower.
`alone` has settings of its own, tuned for so little data; `pooled` is the mean of three runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import msgspec

from examples.turbofan import demo
from examples.turbofan.baselines import ALONE, POOLED, train_until_converged
from examples.turbofan.fleet import Fleet
from examples.turbofan.partition import partition
from fieldfold.task.bundle import Bundle

RUN_FOLDER = Path(".cache/benchmarks/turbofan")
POOLED_RUNS = 3


class Row(msgspec.Struct, frozen=True):
    """One partition."""

    seed: int
    federated: float
    pooled: float
    alone_mean: float
    alone_worst: float
    versions: int
    updates: int
    uplink_ratio: float
    seconds: float

    @property
    def to_pooled(self) -> float:
        """Federated over pooled."""
        return self.federated / self.pooled

    @property
    def to_alone(self) -> float:
        """Federated over the mean of the gateways alone."""
        return self.federated / self.alone_mean


def measure(seed: int) -> Row:
    """Runs the fleet of one partition, and what it is compared with."""
    engines = partition(seed)
    pace = {name: demo.STEPS_PER_S / (demo.SLOWER_BY if name == demo.SLOW else 1.0) for name in engines}
    with Fleet(RUN_FOLDER, demo.BUNDLE, engines, pace, seed=seed) as fleet:
        outcome = demo.run_fleet(fleet, demo.VERSIONS, demo.Display())
    bundle, single = Bundle.read(demo.BUNDLE), Bundle.read(demo.ALONE_BUNDLE)
    alone = [train_until_converged(single, mine, ALONE, seed) for mine in engines.values()]
    everything = tuple(engine for mine in engines.values() for engine in mine)
    pooled = [train_until_converged(bundle, everything, POOLED, run) for run in range(POOLED_RUNS)]
    return Row(
        seed=seed,
        federated=outcome.rmse,
        pooled=statistics.mean(pooled),
        alone_mean=statistics.mean(alone),
        alone_worst=max(alone),
        versions=outcome.version,
        updates=outcome.accepted,
        uplink_ratio=outcome.float32_up / outcome.bytes_up,
        seconds=outcome.seconds,
    )


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.turbofan", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="partitions, from seed 0")
    rows = [measure(seed) for seed in range(parser.parse_args().seeds)]
    print("seed  federated  pooled  alone mean  worst  fed/pooled  fed/alone  updates  bytes up  seconds")
    for row in rows:
        print(
            f"{row.seed:>4}  {row.federated:>9.2f}  {row.pooled:>6.2f}",
            f"{row.alone_mean:>10.2f}  {row.alone_worst:>5.1f}",
            f"{row.to_pooled:>10.3f}  {row.to_alone:>9.3f}  {row.updates:>7}  1/{row.uplink_ratio:>6.0f}",
            f"{row.seconds:>7.1f}",
            sep="  ",
        )
    to_pooled, to_alone = [row.to_pooled for row in rows], [row.to_alone for row in rows]
    result = {
        "benchmark": "turbofan",
        "federated_to_pooled": {
            "median": statistics.median(to_pooled),
            "worst": max(to_pooled),
            "wanted": [1.10, 1.15],
        },
        "federated_to_alone": {"median": statistics.median(to_alone), "worst": max(to_alone), "wanted": [0.80, 0.85]},
        "rows": rows,
    }
    sys.stdout.write(msgspec.json.encode(result).decode() + "\n")


if __name__ == "__main__":
    main()
