"""What `fieldfold task inspect` tells of features, targets and arrays."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from fieldfold.cli.task import task
from fieldfold.params import Layout, TensorSpec
from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.sensors.schema import (
    ColumnTarget,
    DataSchema,
    Feature,
    InputTarget,
    LabelsTarget,
    RemainingLifeTarget,
)
from fieldfold.task.bundle import SECTION_NAMES, batch_bytes, pack
from fieldfold.task.manifest import LearningRate, Manifest, Metric, Optimizer, SelfCheck

DATA = DataSchema(
    features=(Feature("heat", "C"), Feature("tool", categories=("drill", "mill"), others=True)),
    window=4,
    target=(
        ColumnTarget("wear", unit="um", scale=100),
        ColumnTarget("state", classes=("good", "worn"), per_step=True),
        LabelsTarget(("leak", "jam")),
        RemainingLifeTarget(unit="cycles"),
        InputTarget(),
    ),
)
EMPTY = Layout(())


def write(path: Path, description: str = "") -> Path:
    arrays = (*input_arrays(DATA), *target_arrays(DATA))
    manifest = Manifest(
        format=1,
        name="wear",
        description=description,
        kind=DATA.kind,
        data=DATA,
        layout=Layout((TensorSpec("w", (1, 4)),)),
        local=EMPTY,
        frozen=EMPTY,
        optimizer_state=(),
        inputs=input_arrays(DATA),
        targets=target_arrays(DATA),
        outputs=(Array("output.wear", "float32", (1,)), Array("output.state", "float32", (4, 2))),
        metrics=(Metric("RMSE", "lower", finish="root", unit="um"),),
        optimizer=Optimizer("sgd", momentum=0.9),
        learning_rate=LearningRate(0.1),
        batch_size=8,
        local_steps=10,
        proximal=0.0,
        clip_norm=0.0,
        privacy=None,
        self_check=SelfCheck((0.5,), 0.25, 0.1, 2),
        sections=(),
        producer="a test",
    )
    sections = {**dict.fromkeys(SECTION_NAMES, b""), "self_check": bytes(batch_bytes(arrays, 2))}
    sections["parameters"] = np.zeros(4, "<f4").tobytes()
    path.write_bytes(pack(manifest, sections))
    return path


def test_a_person_reads_what_the_task_wants_and_gives(tmp_path: Path) -> None:
    output = CliRunner().invoke(task, ["inspect", str(write(tmp_path / "x.bundle"))], catch_exceptions=False).output
    lines = [line for line in output.splitlines() if not line.startswith(("digest", "size", " "))]
    targets = "y_0 float32 (batch, 1), y_1 int64 (batch, 4), y_2 float32 (batch, 2), y_3 float32 (batch, 1)"
    targets += ", y_4 float32 (batch, 4, 1)"
    assert lines == [
        "task           wear (several targets)",
        "description    -",
        "parameters     4 trained, 0 in buffers",
        "features       2: heat [C], tool (drill, mill or another)",
        "windows        4 rows, stride 1, normalisation fleet",
        "target         column wear [um], a number",
        "target         column state, one of good, worn, one for each row",
        "target         columns leak, jam, each 0 or 1",
        "target         rows to the end of the series [cycles], at most 125",
        "target         the input x itself",
        "inputs         x float32 (batch, 4, 1), c int64 (batch, 4, 1)",
        f"targets        {targets}",
        "outputs        output.wear float32 (batch, 1), output.state float32 (batch, 4, 2)",
        "metrics        RMSE [um]",
        "optimizer      sgd, momentum 0.9, learning rate 0.1",
        "an update      10 steps of 8 examples",
        "proximal       0, clip norm 0",
        "made with      a test",
    ]


def test_a_program_reads_the_manifest(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bundle")
    told = json.loads(CliRunner().invoke(task, ["inspect", "--json", str(path)], catch_exceptions=False).output)
    assert [target["kind"] for target in told["data"]["target"]] == [
        "column",
        "column",
        "labels",
        "remaining_life",
        "input",
    ]
    assert [array["name"] for array in told["outputs"]] == ["output.wear", "output.state"]


def test_what_a_terminal_would_obey_is_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path / "x.bundle", description="a\x1b[2Jb")
    output = CliRunner().invoke(task, ["inspect", str(path)], catch_exceptions=False).output
    assert "description    a?[2Jb" in output
    assert "\x1b" not in output
