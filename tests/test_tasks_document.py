"""docs/TASKS.md against the package: its tables, and its examples, each of which is trained a step."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from fieldfold.sensors import schema
from fieldfold.sensors.arrays import input_arrays, target_arrays
from fieldfold.task import authoring
from fieldfold.task.authoring import Task, adam
from fieldfold.task.compile.model import prepare_model
from fieldfold.task.compile.reference import ReferenceRun
from fieldfold.task.compile.samples import Arrays

DOCUMENT = (Path(__file__).parents[1] / "docs/TASKS.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
FIELDS = {field.name for field in dataclasses.fields(Task)}
NAMES: dict[str, Any] = {}
exec("import torch\nfrom torch import nn\nfrom fieldfold.task.authoring import *", NAMES)  # noqa: S102 -- an author's


def table(head: str) -> list[list[str]]:
    """The cells of the rows of the table whose head begins so."""
    rows = DOCUMENT[DOCUMENT.index(f"| {head}") :].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_trains(example: str) -> None:
    names = dict(NAMES)
    exec(example, names)  # noqa: S102 -- the document's own
    task = Task(
        name="example",
        optimizer=adam(),
        learning_rate=1e-3,
        **{field: names[field] for field in FIELDS & names.keys()},
    )
    arrays = Arrays.of(task.data)
    run = ReferenceRun(task, prepare_model(task), arrays)
    batch = arrays.sample(task.batch_size, 0)
    losses = [run.step(batch, learning_rate=1e-2, seed=0, proximal=0.0, clip_norm=0.0) for _ in range(20)]
    assert losses[-1] < losses[0]
    assert len(run.evaluate(batch)) == 1 + len(task.metrics)
    assert run.predict(batch)


def test_there_is_an_example_under_every_recipe() -> None:
    recipes = DOCUMENT[DOCUMENT.index("## Recipes") : DOCUMENT.index("## Shared, local")]
    assert recipes.count("\n### ") == recipes.count("```python")


def test_the_fields_of_a_task_are_those_of_the_table() -> None:
    assert {row[0].strip("`") for row in table("field of `Task`")} == FIELDS


def test_the_shapes_of_targets_are_those_of_the_table() -> None:
    rows = table("target | array")
    made = []
    for target, dtype, shape, per_step in rows:
        call = re.findall(r"`(\w+\(.*\))`", target)[0]
        made.append(call.partition("(")[0])
        for told, option in ((shape, ""), (per_step, ", per_step=True")):
            if not told or told == "that of the input":
                continue
            found = eval(f"{call[:-1]}{option})".replace("(, ", "("), NAMES)  # noqa: S307 -- the document's own
            data = schema.DataSchema(authoring.features("a"), 7, found)
            sizes = tuple({"window": 7, "labels": 2, "1": 1}[size] for size in re.findall(r"\w+", told))
            assert [(array.dtype, array.shape) for array in target_arrays(data)] == [(dtype, sizes)]
    assert set(made) == {kind.__name__ for kind in schema.Target.__args__}


def test_the_shapes_of_inputs_are_those_of_the_table() -> None:
    numbers, categories, rows = table("| array | shape")
    mixed = schema.DataSchema((*authoring.features("a", "b"), authoring.category("c", "d")), 7, schema.InputTarget())
    x, c = input_arrays(mixed)
    assert (x.dtype, x.shape, numbers[1:]) == ("float32", (7, 2), ["float32", "`(window, features)`"])
    assert (c.dtype, c.shape, categories[1:]) == ("int64", (7, 1), ["int64", "`(window, features)`"])
    (x,) = input_arrays(schema.DataSchema(authoring.features("a", "b"), 1, schema.InputTarget()))
    assert (x.dtype, x.shape, rows[1:]) == ("float32", (2,), ["float32", "`(features,)`"])


def test_everything_that_a_task_file_imports_is_mentioned() -> None:
    beneath = {"Feature", "Measure", "Metric"}  # what features(), rmse() and measure() make
    for name in set(authoring.__all__) - beneath:
        assert re.search(rf"\b{name}\b", DOCUMENT), name
