"""`fieldfold aggregator simulate`."""

from __future__ import annotations

import sys
from pathlib import Path

import click


@click.command()
@click.argument("scenario_path", metavar="SCENARIO.toml", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="results, a JSON line a run (default: SCENARIO.jsonl)")
@click.option("--png", type=click.Path(path_type=Path), help="draw scores over virtual time")
@click.option("--processes", type=click.IntRange(1, 256), help="that train at once (default: one a core)")
def simulate(scenario_path: Path, out: Path | None, png: Path | None, processes: int | None) -> None:
    """Try out methods on a fleet that does not exist yet.

    Nodes with speeds, links, hours and attackers of your choice train for real, on data of yours, under a clock that
    nothing has to wait for; the fold and the codec are the aggregator's own. Every method in the file is run, and a
    table compares them. Ended in the middle, it goes on with the first run that was not finished.
    """
    from aggregator.simulate import report  # noqa: PLC0415 -- help needs neither numpy nor a runtime
    from aggregator.simulate.comparison import compare  # noqa: PLC0415
    from aggregator.simulate.scenario import load  # noqa: PLC0415

    scenario = load(scenario_path)
    results = out or scenario_path.with_suffix(".jsonl")
    outcomes, metric = compare(scenario, scenario_path.resolve().parent, results, processes, sys.stderr)
    sys.stdout.write("\n".join(report.table(outcomes, metric.name, metric.better, scenario.target)) + "\n")
    if png is not None:
        report.draw(png, outcomes, metric.name, scenario.target)
