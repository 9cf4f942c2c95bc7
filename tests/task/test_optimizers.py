"""The compiled optimizers are torch.optim's, on flat vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from fieldfold.params import TensorSpec
from fieldfold.task.authoring import adam, adamw, sgd
from fieldfold.task.compile import optimizers
from fieldfold.task.manifest import Optimizer
from fieldfold.task.signature import optimizer_shapes

TENSORS = (TensorSpec("weight", (7, 5)), TensorSpec("bias", (7,)), TensorSpec("scale", ()))
SIZES = [spec.size for spec in TENSORS]
STEPS = 20
SGD, ADAM, ADAMW = (
    partial(kind, lr=1.0, foreach=False) for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
)


def gradient(step: int) -> Tensor:
    """Of very different sizes, as early and late in training."""
    generator = torch.Generator().manual_seed(step)
    return torch.randn(sum(SIZES), generator=generator) * 10.0 ** (step % 5 - 3)


def rate(step: int) -> float:
    return 0.05 / (1 + step)


def ours(chosen: Optimizer) -> Tensor:
    parameters = gradient(1000)
    state = [torch.zeros(shape) for shape in optimizer_shapes(chosen, sum(SIZES))]
    for step in range(STEPS):
        parameters, state = optimizers.update(
            chosen, TENSORS, parameters, gradient(step), state, torch.tensor(rate(step))
        )
    return parameters


def theirs(make: Callable[..., torch.optim.Optimizer], *, spared: bool = False) -> Tensor:
    """By torch.optim in float64; `spared` tensors of one dimension or none do not decay."""
    pieces = torch.split(gradient(1000).double(), SIZES)
    parameters = [nn.Parameter(piece.reshape(spec.shape)) for piece, spec in zip(pieces, TENSORS, strict=True)]
    groups = [{"params": parameters[:1]}, {"params": parameters[1:], **({"weight_decay": 0.0} if spared else {})}]
    optimizer = make(groups)
    for step in range(STEPS):
        for parameter, piece in zip(parameters, torch.split(gradient(step).double(), SIZES), strict=True):
            parameter.grad = piece.reshape(parameter.shape)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
    return torch.cat([parameter.detach().reshape(-1) for parameter in parameters])


@pytest.mark.parametrize(
    ("chosen", "make"),
    [
        (sgd(), SGD),
        (sgd(momentum=0.9), partial(SGD, momentum=0.9)),
        (sgd(momentum=0.9, nesterov=True), partial(SGD, momentum=0.9, nesterov=True)),
        (sgd(weight_decay=0.1), partial(SGD, weight_decay=0.1)),
        (
            sgd(momentum=0.8, nesterov=True, weight_decay=0.1),
            partial(SGD, momentum=0.8, nesterov=True, weight_decay=0.1),
        ),
        (adam(), ADAM),
        (adam(beta1=0.5, beta2=0.9, epsilon=1e-4), partial(ADAM, betas=(0.5, 0.9), eps=1e-4)),
        (adam(weight_decay=0.1), partial(ADAM, weight_decay=0.1)),
        (adamw(), ADAMW),
        (adamw(weight_decay=0.5), partial(ADAMW, weight_decay=0.5)),
    ],
)
def test_twenty_steps_are_torch_s(chosen: Optimizer, make: Callable[..., torch.optim.Optimizer]) -> None:
    expected = theirs(make)
    assert float((ours(chosen) - expected).norm() / expected.norm()) < 1e-6


def test_nesterov_needs_a_momentum() -> None:
    with pytest.raises(ValueError, match="nesterov needs a momentum"):
        sgd(nesterov=True)


def test_biases_and_scales_can_be_spared_from_decay() -> None:
    chosen = adamw(weight_decay=0.5, decay_vectors=False)
    expected = theirs(partial(ADAMW, weight_decay=0.5), spared=True)
    assert float((ours(chosen) - expected).norm() / expected.norm()) < 1e-6


def test_decoupled_decay_of_gradient_descent_shrinks_the_parameters_apart_from_the_gradient() -> None:
    decayed, plain = ours(sgd(weight_decay=0.5, decoupled=True)), gradient(1000)
    for step in range(STEPS):
        plain = plain * (1 - rate(step) * 0.5) - rate(step) * gradient(step)
    torch.testing.assert_close(decayed, plain)


@pytest.mark.parametrize("limit", [0.01, 1.0, 1e6])
def test_clipping_is_torch_s(limit: float) -> None:
    parameter = nn.Parameter(torch.zeros(sum(SIZES)))
    parameter.grad = gradient(4)
    torch.nn.utils.clip_grad_norm_([parameter], limit)
    torch.testing.assert_close(optimizers.clip_gradient(gradient(4), torch.tensor(limit)), parameter.grad)


def test_a_clip_norm_of_zero_leaves_the_gradient_alone() -> None:
    assert torch.equal(optimizers.clip_gradient(gradient(4), torch.tensor(0.0)), gradient(4))
