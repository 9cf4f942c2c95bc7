"""The arrays of a batch, as they follow from a task's data schema: what a gateway delivers and a graph takes."""

from __future__ import annotations

from typing import Literal

import msgspec

from fieldfold.sensors.schema import ColumnTarget, DataSchema, InputTarget, LabelsTarget, Target

TARGET = "y"


class Array(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Name, dtype and shape of an array without its leading batch dimension."""

    name: str
    dtype: Literal["float32", "int64"]
    shape: tuple[int, ...]


def input_arrays(schema: DataSchema) -> tuple[Array, ...]:
    """One array an input, `(window, features)`: float32 for numbers, int64 indices for categories."""
    return tuple(
        Array(
            name,
            "int64" if schema.features[places[0]].categories else "float32",
            (*steps(schema), len(places)),
        )
        for name, places in schema.inputs.items()
    )


def target_arrays(schema: DataSchema) -> tuple[Array, ...]:
    """One array a target: `y`, or `y_0`, `y_1`, ... where there are several.

    | target | dtype and shape |
    |---|---|
    | number, remaining life | float32 `(1,)` |
    | class | int64 `()` |
    | labels | float32 `(labels,)` of 0 and 1 |
    | input | that of the input |

    A target per step has the window as its first dimension.
    """
    several = len(schema.targets) > 1
    return tuple(
        _target_array(schema, target, f"{TARGET}_{index}" if several else TARGET)
        for index, target in enumerate(schema.targets)
    )


def steps(schema: DataSchema) -> tuple[int, ...]:
    """The dimension of the window: none where every row is an example."""
    return (schema.window,) if schema.window > 1 else ()


def _target_array(schema: DataSchema, target: Target, name: str) -> Array:
    if isinstance(target, InputTarget):
        return Array(name, "float32", (*steps(schema), len(schema.inputs[target.input])))
    lead = steps(schema) if target.per_step else ()
    if isinstance(target, ColumnTarget) and target.classes:
        return Array(name, "int64", lead)
    return Array(name, "float32", (*lead, len(target.names) if isinstance(target, LabelsTarget) else 1))
