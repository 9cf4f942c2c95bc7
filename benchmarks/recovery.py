"""What kill -9 costs at the worst moment: the seconds from the start of the aggregator's program until it folds.

A checkpoint is written before so many contributions have come since the last one that folding them again would take
long (`aggregator.model.replay_is_long`). Here the ledger holds one contribution less than that, accepted and never
folded; the real program starts on it, is killed as soon as it is up, and starts again. With `--contributions` it
holds as many as you like. Processor time is printed beside the time by the clock, since the machine may be busy.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from aggregator.config import LEDGER_FILE
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import Decision
from aggregator.model import replay_is_long
from benchmarks.load.site import FEDERATION, Site
from benchmarks.load.task import payloads
from benchmarks.load.usage import cpu_s
from fieldfold.codec import decode
from fieldfold.params import norm
from fieldfold.wire.chunks import object_digest
from fieldfold.wire.messages import ClientUpdate, pack

FOLDER = Path(".cache/benchmarks/recovery")
NODES = 30
BUFFER = 10
"""Distinct nodes that make a version in a fleet of this size."""
UNLIKE = 8
WANTED_S = 10.0


class Recovery(msgspec.Struct, frozen=True):
    """Seconds until the program folds: on an empty ledger, with all to fold, and killed and started once more."""

    num_params: int
    contributions: int
    empty_s: float
    replay_s: float
    replay_cpu_s: float
    again_s: float
    version: int


def most_contributions(num_params: int) -> int:
    """As many as there can be since the last checkpoint."""
    count = 1
    while not replay_is_long(count + 1, (count + 1) // BUFFER, num_params):
        count += 1
    return count


def fill(path: Path, task: str, num_params: int, contributions: int) -> None:
    """Accepted updates of NODES nodes in turn, against version 0, as a kill between commit and fold leaves them."""
    deltas = [(payload, norm(decode(payload, num_params))) for payload in payloads(num_params, UNLIKE)]
    ledger = Ledger(path, FEDERATION)
    run = bytes.fromhex(ledger.run(task) or "")
    with ledger.transaction():
        for place in range(contributions):
            node, sequence = f"node-{place % NODES:02}", 1 + place // NODES
            payload, length = deltas[place % UNLIKE]
            body = pack(
                ClientUpdate(
                    node=node,
                    sequence=sequence,
                    run=run,
                    base_version=0,
                    num_examples=1000,
                    num_steps=20,
                    train_loss=0.5,
                    trained_norm=length,
                    base_score=(1.0, 100),
                    base_loss=0.5,
                    class_scores=(),
                    payload=payload,
                )
            )
            ledger.put_decision(
                Decision(
                    task=task,
                    node=node,
                    sequence=sequence,
                    digest=object_digest(body),
                    base_version=0,
                    num_examples=1000,
                    accepted=True,
                    size_bytes=len(body),
                    norm=length,
                    num_params=num_params,
                    body=body,
                )
            )
    ledger.close()


def measure(num_params: int, contributions: int) -> Recovery:
    """Starts, kills, fills, starts, kills and starts."""
    with Site(FOLDER, num_params) as site:
        site.kill("aggregator")
        empty_s = _start(site)
        site.kill("aggregator")
        fill(site.folder / "state" / LEDGER_FILE, site.bundle.digest, num_params, contributions)
        replay_s = _start(site)
        replay_cpu_s = cpu_s(site.pid("aggregator"))
        site.kill("aggregator")
        again_s = _start(site)
        version = site.status()["version"]
        return Recovery(num_params, contributions, empty_s, replay_s, replay_cpu_s, again_s, version)


def _start(site: Site) -> float:
    begun_s = time.monotonic()
    site.start_aggregator()
    return round(time.monotonic() - begun_s, 2)


def main() -> None:
    """Prints the table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recovery", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--contributions", type=int, help="instead of as many as there can be")
    chosen = parser.parse_args()
    found = []
    for num_params in chosen.sizes:
        found.append(measure(num_params, chosen.contributions or most_contributions(num_params)))
        one = found[-1]
        print(
            f"{num_params:>10} parameters, {one.contributions:>6} contributions to fold: {one.replay_s:6.2f} s,"
            f" {one.replay_cpu_s:.2f} of a core"
            f" (empty {one.empty_s:.2f} s, killed and started again {one.again_s:.2f} s; wanted {WANTED_S:.0f} s)",
            flush=True,
        )
    sys.stdout.write(msgspec.json.encode({"benchmark": "recovery", "found": found}).decode() + "\n")


if __name__ == "__main__":
    main()
