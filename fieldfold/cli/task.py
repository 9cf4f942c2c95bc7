"""`fieldfold task`: from a task file to a bundle, and what is in it."""

# ruff: noqa: PLC0415 -- each command imports what it needs and no more

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldfold.cli.authoring import build, new
from fieldfold.cli.inspection import inspect

if TYPE_CHECKING:
    from fieldfold.task.bundle import Bundle
    from fieldfold.task.opening import RuntimeName
    from fieldfold.task.runtime import Runtime

_TIMED_S = 1.0
_WARM_UP_STEPS = 20

_FILE = click.Path(path_type=Path)


@click.group()
def task() -> None:
    """Compile what the fleet learns, and look into it."""


task.add_command(new)
task.add_command(build)
task.add_command(inspect)


@task.command()
@click.argument("file", type=_FILE)
@click.option("--runtime", "only", type=click.Choice(["onnx", "torch"]), help="This one, not each that is installed.")
def check(file: Path, only: RuntimeName | None) -> None:
    """Repeat the self-check of a bundle FILE on this machine with each runtime, and measure its speed."""
    from fieldfold.task.bundle import Bundle
    from fieldfold.task.opening import RuntimeSettings, installed, open_runtime

    bundle = Bundle.read(file)
    losses, rows = len(bundle.manifest.self_check.losses), bundle.manifest.batch_size
    for name in (only,) if only else installed():
        runtime = open_runtime(bundle, RuntimeSettings(runtime=name))
        runtime.self_check()
        steps_per_s = _speed(bundle, runtime)
        unit_bytes = 1 if sys.platform == "darwin" else 1024
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes / 1e6
        click.echo(f"self-check passed with the runtime {name} on {runtime.device}: {losses} losses agree")
        click.echo(f"{steps_per_s:.0f} steps/s with batches of {rows}, peak memory so far {peak_mb:.0f} MB")


def _speed(bundle: Bundle, runtime: Runtime) -> float:
    """Steps a second, on the self-check's rows repeated to a whole batch."""
    import numpy as np

    from fieldfold.task.self_check import read_batch

    manifest = bundle.manifest
    rows = np.arange(manifest.batch_size) % manifest.self_check.batch_size
    batch = {name: array[rows] for name, array in read_batch(bundle).items()}
    rate = manifest.learning_rate.initial
    runtime.begin(bundle.initial_parameters())
    steps, start = -_WARM_UP_STEPS, time.perf_counter()
    while steps <= 0 or time.perf_counter() - start < _TIMED_S:
        if steps == 0:
            start = time.perf_counter()
        runtime.step(
            batch, learning_rate=rate, seed=max(steps, 0), proximal=manifest.proximal, clip_norm=manifest.clip_norm
        )
        steps += 1
    return steps / (time.perf_counter() - start)


@task.command()
@click.argument("file", type=_FILE)
@click.option("--socket", type=_FILE, help="Control socket of the running aggregator.")
def publish(file: Path, socket: Path | None) -> None:
    """Give the fleet of the aggregator on this machine a bundle FILE to learn.

    Every gateway fetches it over the broker, checks it, and begins anew with it; a task that was published before
    goes on where it was. Configure the gateways' data for it first.
    """
    from base64 import b64encode

    from fieldfold.control.client import ControlClient
    from fieldfold.control.protocol import default_socket
    from fieldfold.task.bundle import Bundle

    bundle = Bundle.read(file)
    with ControlClient(socket or default_socket("aggregator")) as client:
        answer = client.command("publish_task", bundle=b64encode(bundle.data).decode())
    click.echo(f"{bundle.manifest.name} ({bundle.digest[:16]}) is the fleet's task now; its model {answer['model']}")
    click.echo(f"{answer['online']} gateways are online; one whose data does not fit the task says `needs attention`")
