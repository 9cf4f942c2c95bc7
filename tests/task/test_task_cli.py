from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from fieldfold.cli.task import task
from fieldfold.errors import BundleError, CompileError
from fieldfold.task import Bundle
from fieldfold.task.compile.stages import STAGES

TASK_FILE = '''
"""Wear of a press from force and heat."""

from torch import nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, adam, features, mean_squared_error, rmse

TASK = Task(
    name="press-wear",
    description=__doc__,
    model=nn.Sequential(nn.Flatten(), nn.Linear(8, 4), nn.ReLU(), nn.Dropout(0.1), nn.Linear(4, 1)),
    loss=mean_squared_error,
    metrics=[rmse(scale=100, unit="um")],
    data=DataSchema(features=features("force", "heat"), window=4, target=ColumnTarget("wear", scale=100)),
    optimizer=adam(),
    learning_rate=1e-3,
)
'''


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("press")
    (folder / "press.py").write_text(TASK_FILE)
    result = CliRunner().invoke(task, ["build", str(folder / "press.py"), "-o", str(folder / "press.bundle")])
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert [line.partition("] ")[2] for line in lines if line.startswith("[")] == list(STAGES)
    what, takes, gives, learns, parity, following = lines[-6:]
    figures = r"41 parameters, \d+\.\d kB, digest \w{12}, built in [\d.]+ s"
    assert re.fullmatch(rf"{folder}/press\.bundle: press-wear \(regression\), {figures}", what)
    assert takes == "takes   x float32 (batch, 4, 2)"
    assert gives == "gives   output float32 (batch, 1)"
    assert learns == "learns  y float32 (batch, 1)"
    assert parity.startswith("parity  parameters within ")
    assert following.startswith(f"next    fieldfold task check {folder}/press.bundle")
    assert sorted(path.name for path in folder.iterdir()) == ["press.bundle", "press.py"]
    return folder / "press.bundle"


def test_inspect_tells_a_person_what_is_in_a_bundle(built: Path) -> None:
    lines = CliRunner().invoke(task, ["inspect", str(built)], catch_exceptions=False).output
    for expected in ("press-wear (regression)", "force, heat", "41 trained", "adam", "RMSE [um]", "train.onnx"):
        assert expected in lines


def test_inspect_tells_a_program_too(built: Path) -> None:
    told = json.loads(CliRunner().invoke(task, ["inspect", "--json", str(built)], catch_exceptions=False).output)
    assert told["digest"] == Bundle.read(built).digest
    assert told["size_bytes"] == built.stat().st_size
    assert told["name"] == "press-wear"


def test_check_repeats_the_self_check_with_each_runtime_and_measures(built: Path) -> None:
    first, speed, second, _ = (
        CliRunner().invoke(task, ["check", str(built)], catch_exceptions=False).output.splitlines()
    )
    assert first == "self-check passed with the runtime onnx on cpu: 5 losses agree"
    assert re.fullmatch(r"\d+ steps/s with batches of 64, peak memory so far \d+ MB", speed)
    assert second == "self-check passed with the runtime torch on cpu: 5 losses agree"


def test_check_takes_one_runtime_if_told(built: Path) -> None:
    output = CliRunner().invoke(task, ["check", "--runtime", "torch", str(built)], catch_exceptions=False).output
    assert "runtime torch" in output
    assert "runtime onnx" not in output


def test_another_process_in_another_folder_builds_the_same_bytes(built: Path, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    other.mkdir()
    (other / "renamed.py").write_text(TASK_FILE)
    arguments = ["task", "build", "renamed.py", "-o", "again.bundle"]
    done = subprocess.run(
        [sys.executable, "-c", f"from fieldfold.cli.task import task; task({arguments[1:]!r})"],
        cwd=other,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert (other / "again.bundle").read_bytes() == built.read_bytes()


def test_a_bundle_that_fails_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK_FILE.replace("nn.Linear(8, 4)", "nn.Linear(9, 4)"))
    result = CliRunner().invoke(task, ["build", str(tmp_path / "task.py"), "-o", str(tmp_path / "x.bundle")])
    assert isinstance(result.exception, CompileError)
    assert "task.py: task press-wear: a training step in torch fails" in result.exception.reason
    assert [path.name for path in tmp_path.iterdir()] == ["task.py"]


def test_a_folder_that_is_not_there_is_named(built: Path, tmp_path: Path) -> None:
    target = tmp_path / "absent" / "x.bundle"
    result = CliRunner().invoke(task, ["build", str(built.with_suffix(".py")), "-o", str(target)])
    assert isinstance(result.exception, CompileError)
    assert "cannot write" in result.exception.reason


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bundle").write_text("hello")
    for command in ("inspect", "check"):
        result = CliRunner().invoke(task, [command, str(tmp_path / "x.bundle")])
        assert isinstance(result.exception, BundleError)
        assert "not a task bundle" in result.exception.reason
