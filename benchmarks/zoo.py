"""A training step of the zoo's members as one writes it in torch; needs no ONNX."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from fieldfold.task.authoring import Task
from fieldfold.task.compile.model import prepare_model
from fieldfold.task.compile.reference import torch_optimizer
from fieldfold.task.compile.samples import Arrays


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
