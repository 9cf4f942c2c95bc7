"""`fieldfold task new` and `fieldfold task build`: what a data scientist does at a desk."""

# ruff: noqa: PLC0415 -- each command imports what it needs and no more

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fieldfold.cli.figures import size
from fieldfold.cli.inspection import told_arrays
from fieldfold.cli.stages import Stages
from fieldfold.errors import CompileError

if TYPE_CHECKING:
    from fieldfold.task.compile.build import Built

KINDS = ("regression", "classification", "multi-label", "autoencoder", "sequence")
STARTING_NAME = "starting"
"""The name of the task in every starting file."""
_PACKAGES = ("torch", "onnx", "onnxscript")

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("name")
@click.option("--kind", type=click.Choice(KINDS), default=KINDS[0], help="What is to be learned.", show_default=True)
def new(name: str, kind: str) -> None:
    """Write NAME.py, a task to start from: it builds as it is, and says what to change."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._\-]{0,63}", name):
        raise CompileError(
            f"{name!r} cannot be a task's name",
            "use at most 64 lower-case letters, digits, dots, hyphens and underscores",
        )
    starting = files("fieldfold.task.starting") / f"{kind.replace('-', '_')}.py"
    text = starting.read_text(encoding="utf-8").replace(f'name="{STARTING_NAME}"', f'name="{name}"')
    path = Path(f"{name}.py")
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise CompileError(f"{path} is there already", "choose another name, or remove the file") from None
    except OSError as error:
        raise CompileError(
            f"cannot write {path}: {error.strerror}", "check the folder and its permissions"
        ) from error
    click.echo(f"{path}: a task of the kind {kind}; what to change is marked with <-")
    click.echo(f"next: fieldfold task build {path} -o {name}.bundle")


@click.command()
@click.argument("file", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="Where to write the bundle.")
def build(file: Path, output: Path) -> None:
    """Compile the TASK of a Python FILE into a bundle, and check that it trains as torch does."""
    if not output.absolute().parent.is_dir():
        raise CompileError(f"cannot write {output}: there is no such folder", "make the folder first")
    begun_at = time.monotonic()
    from fieldfold.task.compile import stages

    with Stages(stages.STAGES, sys.stderr) as told:
        told(stages.LOADING)
        built = _compiler()(file, told)
    _write(built.bundle.data, output)
    for line in _summary(built, output, time.monotonic() - begun_at):
        click.echo(line, err=True)


def _compiler() -> Callable[[Path, Callable[[str], None]], Built]:
    try:
        from fieldfold.task.compile.build import build_file
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES:
            raise
        raise CompileError(
            f"the package {error.name} is not installed", "install fieldfold[build] where bundles are compiled"
        ) from error
    return build_file


def _write(data: bytes, output: Path) -> None:
    written = output.with_name(output.name + ".part")
    try:
        written.write_bytes(data)
        written.replace(output)
    except OSError as error:
        raise CompileError(
            f"cannot write {output}: {error.strerror}", "check the folder and its permissions"
        ) from error


def _summary(built: Built, output: Path, took_s: float) -> list[str]:
    """What was built, what its graphs take, how near they come to torch, and what to do next."""
    bundle, manifest = built.bundle, built.bundle.manifest
    farthest = max(parity.error for parity in built.parity)
    figures = f"{manifest.num_trained} parameters, {size(len(bundle.data))}, digest {bundle.digest[:12]}"
    return [
        f"{output}: {manifest.name} ({manifest.kind}), {figures}, built in {took_s:.1f} s",
        f"takes   {told_arrays(manifest.inputs)}",
        f"gives   {told_arrays(manifest.outputs)}",
        f"learns  {told_arrays(manifest.targets)}",
        f"parity  parameters within {farthest:.1e} of float64 torch's, measured over whole training runs",
        f"next    fieldfold task check {output}, then fieldfold task publish {output} beside the aggregator",
    ]
