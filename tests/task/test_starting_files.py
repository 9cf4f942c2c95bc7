"""`fieldfold task new`: what it writes builds as it is, and says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fieldfold.cli.authoring import KINDS
from fieldfold.cli.task import task
from fieldfold.errors import CompileError
from fieldfold.task import Bundle
from fieldfold.task.compile.task_file import load_task

KIND_IN_MANIFEST = {"sequence": "classification"}


def new(folder: Path, *arguments: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        return CliRunner().invoke(task, ["new", *arguments])


@pytest.mark.parametrize("kind", KINDS)
def test_every_starting_file_builds_as_it_is(tmp_path: Path, kind: str) -> None:
    assert new(tmp_path, "pump-7", "--kind", kind).exit_code == 0
    file, bundle = tmp_path / "pump-7.py", tmp_path / "pump-7.bundle"
    result = CliRunner().invoke(task, ["build", str(file), "-o", str(bundle)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "not counted" not in result.stderr, "a newcomer's first build leaves no question"
    manifest = Bundle.read(bundle).manifest
    assert (manifest.name, manifest.kind) == ("pump-7", KIND_IN_MANIFEST.get(kind, kind))
    assert manifest.batch_size * manifest.local_steps <= 2000, "an update takes a gateway seconds"


def test_it_says_what_comes_next(tmp_path: Path) -> None:
    assert new(tmp_path, "pump").output.splitlines() == [
        "pump.py: a task of the kind regression; what to change is marked with <-",
        "next: fieldfold task build pump.py -o pump.bundle",
    ]
    assert load_task(tmp_path / "pump.py").name == "pump"
    assert "# <-" in (tmp_path / "pump.py").read_text()


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / "pump.py").write_text("mine")
    result = new(tmp_path, "pump")
    assert isinstance(result.exception, CompileError)
    assert "pump.py is there already" in result.exception.reason
    assert (tmp_path / "pump.py").read_text() == "mine"


@pytest.mark.parametrize("name", ["Pump", "../pump", "a b", "", "-x" * 40])
def test_names_that_a_task_cannot_have_are_refused(tmp_path: Path, name: str) -> None:
    result = new(tmp_path, "--", name)
    assert isinstance(result.exception, CompileError)
    assert "cannot be a task's name" in result.exception.reason
    assert not list(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "pump.py").symlink_to(tmp_path / "nowhere" / "pump.py")
    result = new(tmp_path, "pump")
    assert isinstance(result.exception, CompileError)
