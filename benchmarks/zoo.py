"""The zoo of tests/task/zoo, and each member's step as one writes it in torch; needs no ONNX."""

from __future__ import annotations

import copy
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import torch

from fieldfold.task.authoring import Task
from fieldfold.task.compile.model import prepare_model
from fieldfold.task.compile.reference import torch_optimizer
from fieldfold.task.compile.samples import Arrays

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "task" / "zoo"


def members() -> dict[str, Callable[[], Task]]:
    """The zoo: every public function of its files that takes nothing and gives a Task, by the file's and its name."""
    found: dict[str, Callable[[], Task]] = {}
    for path in sorted(ZOO.glob("*.py")):
        module = importlib.import_module(f"tests.task.zoo.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            told = inspect.signature(function)
            own = function.__module__ == module.__name__ and not name.startswith("_")
            if own and not told.parameters and told.return_annotation == "Task":
                found[f"{path.stem}.{name}"] = function
    return found


def member(name: str) -> Task:
    """One of the zoo."""
    return members()[name]()


def eager(task: Task) -> Callable[[], float]:
    """The step as one writes it in torch."""
    torch.manual_seed(task.seed)
    prepared, arrays = prepare_model(task), Arrays.of(task.data)
    module, loss = copy.deepcopy(prepared.module), copy.deepcopy(task.loss)
    optimizer = torch_optimizer(task.optimizer, [{"params": [p for p in module.parameters() if p.requires_grad]}])
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    prepared.set_training(module)
    inputs, targets = arrays.tensors(arrays.sample(task.batch_size, task.seed))

    def step() -> float:
        optimizer.zero_grad()
        value = loss(module(*inputs), *targets).mean()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(value.detach())

    return step
