"""Mistakes of a task's author are told by file and line, on one line, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fieldfold.errors import CompileError
from fieldfold.task.compile.build import build_file
from fieldfold.task.compile.source_lines import defined_at, is_the_authors

TASK_FILE = """
import torch
from torch import nn
from fieldfold.task.authoring import *

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 1)

    def forward(self, x):
        return self.last(x)

def loss(output, target):
    return ((output - target) ** 2).mean(1)

TASK = Task(
    name="wear", model=Model, loss=loss, metrics=[rmse()], optimizer=adam(), learning_rate=1e-3,
    data=DataSchema(features("force", "heat"), 1, ColumnTarget("wear")),
)
"""


def refused(folder: Path, was: str, becomes: str) -> str:
    assert TASK_FILE.count(was) == 1
    path = folder / "wear.py"
    path.write_text(TASK_FILE.replace(was, becomes))
    with pytest.raises(CompileError) as caught:
        build_file(path, lambda _: None)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return caught.value.reason.replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("was", "becomes", "says"),
    [
        (
            "nn.Linear(2, 1)",
            "nn.Linaer(2, 1)",
            "wear.py:9: the model cannot be made: AttributeError: module 'torch.nn' has no attribute 'Linaer'",
        ),
        (
            "nn.Linear(2, 1)",
            "nn.Linear(3, 1)",
            "wear.py:12: a training step in torch fails: RuntimeError: mat1 and mat2",
        ),
        ("self.last(x)", "self.lats(x)", "wear.py:12: a training step in torch fails: AttributeError: 'Model'"),
        ("** 2).mean(1)", "** 2).mean(7)", "wear.py:15: a training step in torch fails: IndexError"),
        (
            "** 2).mean(1)",
            "** 2).mean()",
            "wear.py:14: the loss gives torch.float64 of shape (), not one float an ex",
        ),
        (
            "metrics=[rmse()]",
            "metrics=[loss]",
            "wear.py:17: TypeError: metrics must be a list of at least one Measure",
        ),
        ('name="wear"', 'name="Wear"', "wear.py:17: ValueError: name: Expected `str` matching"),
        ('"force", "heat"', '"heat", "heat"', "wear.py:19: ValueError: the features hold 'heat' twice"),
        (
            "def forward(self, x):",
            "def forward(self):",
            "wear.py: task wear: a training step in torch fails: TypeError",
        ),
        (
            "def loss(output",
            "def loss(output, other",
            "wear.py: task wear: a training step in torch fails: TypeError",
        ),
    ],
)
def test_a_mistake_is_told_by_its_line(tmp_path: Path, was: str, becomes: str, says: str) -> None:
    assert refused(tmp_path, was, becomes).startswith(says)


def test_a_mistake_in_a_module_beside_the_task_file_is_told_by_its_own_line(tmp_path: Path) -> None:
    (tmp_path / "blocks_of_mine.py").write_text("def block():\n    raise ValueError('no\\nsuch block')\n")
    reason = refused(tmp_path, "import torch\n", "import torch, blocks_of_mine; blocks_of_mine.block()\n")
    assert reason == "blocks_of_mine.py:2: ValueError: no"


def test_only_files_outside_of_libraries_are_the_author_s() -> None:
    assert is_the_authors(__file__)
    assert not any(map(is_the_authors, (torch.__file__, CompileError.__init__.__code__.co_filename, "<string>")))
    assert defined_at(refused) == f"{__file__}:{refused.__code__.co_firstlineno}"
    assert defined_at(torch.nn.functional.mse_loss) is None
    assert defined_at(torch.relu) is None
