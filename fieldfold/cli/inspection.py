"""`fieldfold task inspect`: what is in a bundle, for people and for programs."""

# ruff: noqa: PLC0415 -- the command imports what it needs and no more

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fieldfold.cli.figures import plain, size

if TYPE_CHECKING:
    from fieldfold.sensors.arrays import Array
    from fieldfold.sensors.schema import Feature, Target
    from fieldfold.task.bundle import Bundle
    from fieldfold.task.manifest import Manifest, Optimizer


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The manifest as JSON, with digest and size.")
def inspect(file: Path, *, as_json: bool) -> None:
    """Show what a bundle FILE holds, after checking all of it."""
    from fieldfold.task.bundle import Bundle

    bundle = Bundle.read(file)
    if as_json:
        head: dict[str, Any] = {"digest": bundle.digest, "size_bytes": len(bundle.data)}
        whole = msgspec.json.encode(head | msgspec.to_builtins(bundle.manifest))
        click.echo(msgspec.json.format(whole, indent=2).decode())
        return
    for label, value in _summary(bundle):
        click.echo(f"{label:<15}{plain(value)}")


def told_arrays(arrays: Iterable[Array]) -> str:
    """Names, dtypes and shapes of a batch's arrays, as in `x float32 (batch, 30, 14)`."""
    return ", ".join(
        f"{array.name} {array.dtype} ({', '.join(map(str, ('batch', *array.shape)))})" for array in arrays
    )


def _summary(bundle: Bundle) -> list[tuple[str, str]]:
    manifest, data = bundle.manifest, bundle.manifest.data
    window = f"{data.window} rows, stride {data.stride}" if data.window > 1 else "none, every row is an example"
    lines = [
        ("task", f"{manifest.name} ({manifest.kind})"),
        ("description", " ".join(manifest.description.split()) or "-"),
        ("digest", bundle.digest),
        ("parameters", _parameters(manifest)),
        ("features", f"{len(data.features)}: {', '.join(map(_feature, data.features))}"),
        ("windows", f"{window}, normalisation {data.normalisation}"),
        *(("target", _target(target)) for target in data.targets),
        ("inputs", told_arrays(manifest.inputs)),
        ("targets", told_arrays(manifest.targets)),
        ("outputs", told_arrays(manifest.outputs)),
        ("metrics", ", ".join(_with_unit(metric.name, metric.unit) for metric in manifest.metrics)),
        ("optimizer", f"{_optimizer(manifest.optimizer)}, learning rate {manifest.learning_rate.initial:g}"),
        ("an update", f"{manifest.local_steps} steps of {manifest.batch_size} examples"),
        ("proximal", f"{manifest.proximal:g}, clip norm {manifest.clip_norm:g}"),
        ("made with", manifest.producer),
        ("size", size(len(bundle.data))),
    ]
    lines += [("", f"{s.name}: {size(s.size_bytes)}, {size(s.compressed_bytes)} here") for s in manifest.sections]
    return lines


def _with_unit(name: str, unit: str) -> str:
    return f"{name} [{unit}]" if unit else name


def _feature(feature: Feature) -> str:
    if not feature.categories:
        return _with_unit(feature.name, feature.unit)
    return f"{feature.name} ({', '.join(feature.categories)}{' or another' if feature.others else ''})"


def _target(target: Target) -> str:
    from fieldfold.sensors.schema import ColumnTarget, InputTarget, LabelsTarget

    if isinstance(target, InputTarget):
        return f"the input {target.input} itself"
    rows = ", one for each row" if target.per_step else ""
    if isinstance(target, LabelsTarget):
        return f"columns {', '.join(target.names)}, each 0 or 1{rows}"
    if isinstance(target, ColumnTarget) and target.classes:
        return f"column {target.name}, one of {', '.join(target.classes)}{rows}"
    if isinstance(target, ColumnTarget):
        return f"column {_with_unit(target.name, target.unit)}, a number{rows}"
    return f"{_with_unit('rows to the end of the series', target.unit)}, at most {target.cap:g}{rows}"


def _parameters(manifest: Manifest) -> str:
    layout, local, frozen = manifest.layouts
    told = f"{layout.num_trained} trained, {layout.num_params - layout.num_trained} in buffers"
    parts = [(local.num_params, "stay on each gateway"), (frozen.num_params, "frozen")]
    return ", ".join([told, *(f"{count} {what}" for count, what in parts if count)])


def _optimizer(optimizer: Optimizer) -> str:
    names = ("momentum", "nesterov") if optimizer.name == "sgd" else ("beta1", "beta2", "epsilon")
    decay = ("weight_decay", "decoupled") if optimizer.weight_decay else ()
    settings = {name: getattr(optimizer, name) for name in (*names, *decay)}
    told = [f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items() if value]
    return ", ".join([optimizer.name, *told])
