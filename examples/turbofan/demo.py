"""The turbofan fleet on one machine, from start to result: `make demo`.

Twelve gateways, each with 4 to 8 engines of its own, learn together over MQTT without waiting for one another. One
is ten times slower than the others, one is killed with kill -9 on the way and started again.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from examples.turbofan.baselines import ALONE, POOLED, train_until_converged
from examples.turbofan.fleet import Fleet
from examples.turbofan.partition import partition
from fieldfold.errors import FieldfoldError
from fieldfold.task.bundle import Bundle

HERE = Path(__file__).resolve().parent
BUNDLE, ALONE_BUNDLE = HERE / "turbofan.bundle", HERE / "alone.bundle"
RUN_FOLDER = Path("demo-run")
PARTITION_SEED = 1
VERSIONS = 250
LONGEST_S = 90.0
STEPS_PER_S = 60.0
SLOW, SLOWER_BY = "gateway-12", 10.0
KILLED = "gateway-05"
AWAY_S = 3.0
LOOK_EVERY_S = 0.5
LINE_EVERY_S = 5.0


class Outcome(msgspec.Struct, frozen=True):
    """What a run of the fleet led to; `rmse` is in cycles, on the official test set."""

    rmse: float
    version: int
    accepted: int
    rejected: int
    staleness_median: float
    staleness_max: int
    bytes_up: int
    bytes_down: int
    float32_up: int
    float32_down: int
    seconds: float
    killed_and_back: bool


def run_fleet(fleet: Fleet, versions: int, show: Display, *, kill: str | None = None) -> Outcome:
    """Runs a fleet until it has released `versions` versions, or LONGEST_S are over.

    Raises:
        FieldfoldError: when a part of it ends, or nothing is learned within LONGEST_S.
    """
    begun_at = time.monotonic()
    fleet.start_broker()
    fleet.start_aggregator()
    for name in fleet.engines:
        fleet.start_node(name)
    killed_at: float | None = None
    back, lost_bytes = kill is None, 0
    while True:
        time.sleep(LOOK_EVERY_S)
        fleet.check_alive()
        seconds = time.monotonic() - begun_at
        status = fleet.aggregator_status()
        if status is None:
            continue
        version = status["version"] or 0
        show.progress(status, seconds, versions)
        if version >= versions:
            break
        if seconds > LONGEST_S:
            if version == 0:
                raise FieldfoldError(f"no version in {LONGEST_S:.0f} s", f"look into the logs in {fleet.folder}")
            show.say(f"this machine is slow: ending at version {version}")
            break
        if kill and killed_at is None and version >= versions // 2:
            lost_bytes = (fleet.node_status(kill) or {}).get("bytes_down", 0)
            fleet.kill(kill)
            killed_at = seconds
            show.say(f"{kill} killed with kill -9")
        if kill and killed_at is not None and not back and seconds - killed_at > AWAY_S:
            fleet.start_node(kill)
            back = True
            show.say(f"{kill} started again")
    return _outcome(fleet, time.monotonic() - begun_at, lost_bytes, killed_and_back=kill is not None and back)


def _outcome(fleet: Fleet, seconds: float, lost_bytes: int, *, killed_and_back: bool) -> Outcome:
    nodes = [status for name in fleet.engines if (status := fleet.node_status(name)) is not None]
    for name in fleet.engines:
        fleet.end(name)
    status = fleet.aggregator_status()
    deadline = time.monotonic() + 10.0
    while status["score_version"] != status["version"] and time.monotonic() < deadline:
        time.sleep(0.2)
        status = fleet.aggregator_status()
    parameters = Bundle.read(fleet.bundle).manifest.layout.num_params
    return Outcome(
        rmse=status["score"],
        version=status["version"],
        accepted=status["accepted"],
        rejected=status["rejected"],
        staleness_median=status["staleness_median"],
        staleness_max=status["staleness_max"],
        bytes_up=status["bytes_received"],
        bytes_down=sum(node["bytes_down"] for node in nodes) + lost_bytes,
        float32_up=status["float32_bytes"],
        float32_down=status["version"] * parameters * 4 * len(fleet.engines),
        seconds=seconds,
        killed_and_back=killed_and_back,
    )


class Display:
    """Progress: a table that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._height = 0
        self._said_at = -LINE_EVERY_S

    def say(self, text: str) -> None:
        """One line that stays."""
        self._clear()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def progress(self, status: dict[str, Any], seconds: float, versions: int) -> None:
        """Where the fleet is."""
        if status["version"] is None:
            line = f"{seconds:4.0f} s  {status['state']}, {status['nodes_online']} gateways online"
        else:
            score = "-" if status["score"] is None else f"{status['score']:.1f}"
            line = (
                f"{seconds:4.0f} s  version {status['version']:>3} of {versions}  RMSE {score:>4} cycles"
                f"  {status['accepted']:>4} updates  {status['nodes_online']:>2} online"
            )
        if self._live:
            self._clear()
            width = shutil.get_terminal_size().columns
            rows = [row[: width - 1] for row in (line, "", *_node_rows(status))]
            sys.stdout.write("\n".join(rows) + "\n")
            self._height = len(rows)
        elif seconds - self._said_at >= LINE_EVERY_S:
            self._said_at = seconds
            sys.stdout.write(line + "\n")
        sys.stdout.flush()

    def _clear(self) -> None:
        if self._height:
            sys.stdout.write(f"\x1b[{self._height}F\x1b[J")
            self._height = 0


def _node_rows(status: dict[str, Any]) -> list[str]:
    rows = ["gateway      state      accepted   own RMSE      up"]
    for node in status["nodes"]:
        presence = node["presence"] or {"state": "-", "score": None}
        own = "-" if presence["score"] is None else f"{presence['score']:.1f}"
        state = "offline" if presence["state"] == "offline" else "online"
        note = "  ten times slower" if node["node"] == SLOW else ""
        sent = f"{node['bytes_on_wire'] / 1000:>5.0f} kB"
        rows.append(f"{node['node']:<12} {state:<10} {node['accepted']:>8}   {own:>8}   {sent}{note}")
    return rows


def report(outcome: Outcome, alone: dict[str, float], pooled: float) -> str:
    """The table at the end."""
    mean, worst, best = sum(alone.values()) / len(alone), max(alone.values()), min(alone.values())
    up, down = (
        _against_float32(outcome.bytes_up, outcome.float32_up),
        _against_float32(outcome.bytes_down, outcome.float32_down),
    )
    return f"""
RMSE on the official test engines, in cycles (labels capped at 125; lower is better)
  together, over MQTT              {outcome.rmse:6.2f}
  each gateway alone, mean         {mean:6.2f}     together is {outcome.rmse / mean:.2f} times that
  each gateway alone, worst        {worst:6.2f}     best {best:.2f}
  all data in one place            {pooled:6.2f}     together is {outcome.rmse / pooled:.2f} times that

The fleet
  model versions                   {outcome.version:6}
  updates folded, rejected         {outcome.accepted:6}     {outcome.rejected}
  staleness, median and largest    {outcome.staleness_median:6.0f}     {outcome.staleness_max} versions
  bytes up                      {up}
  bytes down, all gateways      {down}
  wall time of the federation      {outcome.seconds:6.1f} s
  killed with kill -9 and back     {"yes" if outcome.killed_and_back else "no":>6}
"""


def _against_float32(size: int, float32: int) -> str:
    return f"{size / 1e6:6.2f} MB  float32 would be {float32 / 1e6:.0f} MB, {float32 / size:.0f} times more"


def main(arguments: list[str] | None = None) -> int:
    """Runs the demo; 0 when all went well."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__.splitlines()[0])
    parser.add_argument("--embedded", action="store_true", help="use the embedded broker though Mosquitto is there")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    engines = partition(PARTITION_SEED)
    pace = {name: STEPS_PER_S / (SLOWER_BY if name == SLOW else 1.0) for name in engines}
    show = Display()
    bundle = Bundle.read(BUNDLE)
    with Fleet(RUN_FOLDER, BUNDLE, engines, pace, embedded=options.embedded) as fleet:
        broker = "the embedded broker" if fleet.embedded else "Mosquitto over TLS"
        show.say(f"{len(engines)} gateways ({SLOW} ten times slower), an aggregator, {broker}")
        outcome = run_fleet(fleet, VERSIONS, show, kill=KILLED)
    show.say("for comparison: each gateway alone, and all data in one place (no federation)")
    single = Bundle.read(ALONE_BUNDLE)
    alone = {name: train_until_converged(single, mine, ALONE, 0) for name, mine in engines.items()}
    together = tuple(sorted(engine for mine in engines.values() for engine in mine))
    show.say(report(outcome, alone, train_until_converged(bundle, together, POOLED, 0)))
    show.say(f"logs and databases of this run are in {RUN_FOLDER}/; nothing runs any more")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except FieldfoldError as error:
        sys.stderr.write(f"demo: {error}\n")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
