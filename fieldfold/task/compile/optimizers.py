"""The optimizers as pure functions on lists of tensors, written so that their graphs are small."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fieldfold.task.manifest import Optimizer

_NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_gradients(gradients: Sequence[Tensor], clip_norm: Tensor) -> list[Tensor]:
    """Scales all gradients to a joint Euclidean norm of at most `clip_norm`, a scalar; 0 leaves them as they are."""
    total = torch.sqrt(torch.stack([(gradient * gradient).sum() for gradient in gradients]).sum())
    factor = torch.where(clip_norm > 0, torch.clamp(clip_norm / (total + _NORM_EPSILON), max=1.0), 1.0)
    return [gradient * factor for gradient in gradients]


def update(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[Tensor],
    learning_rate: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """One step: the next parameters and the next state, whose shapes are `signature.optimizer_shapes`.

    Only tensors of two or more dimensions decay: biases and the scales of norms do not.
    """
    if optimizer.weight_decay:
        shrink = 1.0 - learning_rate * optimizer.weight_decay
        parameters = [parameter * shrink if parameter.dim() > 1 else parameter for parameter in parameters]
    if optimizer.name == "adam":
        return _adam(optimizer, parameters, gradients, state, learning_rate)
    return _sgd(optimizer, parameters, gradients, state, learning_rate)


def _sgd(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[Tensor],
    learning_rate: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    velocities = [
        optimizer.momentum * velocity + gradient for velocity, gradient in zip(state, gradients, strict=False)
    ]
    steps = velocities or gradients
    return [p - learning_rate * step for p, step in zip(parameters, steps, strict=True)], velocities


def _adam(
    optimizer: Optimizer,
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    state: Sequence[Tensor],
    learning_rate: Tensor,
) -> tuple[list[Tensor], list[Tensor]]:
    """Kingma and Ba, 2015, algorithm 1.

    The corrections 1 - beta^t are kept as moving averages of one: in float32 the difference itself would lose three
    digits at small t.
    """
    beta1, beta2, count = optimizer.beta1, optimizer.beta2, len(parameters)
    firsts = [beta1 * m + (1 - beta1) * g for m, g in zip(state[:count], gradients, strict=True)]
    seconds = [beta2 * v + (1 - beta2) * (g * g) for v, g in zip(state[count : 2 * count], gradients, strict=True)]
    correction1 = beta1 * state[-2] + (1 - beta1)
    correction2 = beta2 * state[-1] + (1 - beta2)
    rate = learning_rate / correction1
    root_scale = 1.0 / torch.sqrt(correction2)
    following = [
        p - rate * m / (torch.sqrt(v) * root_scale + optimizer.epsilon)
        for p, m, v in zip(parameters, firsts, seconds, strict=True)
    ]
    return following, [*firsts, *seconds, correction1, correction2]
