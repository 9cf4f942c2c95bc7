"""The optimizers as pure functions of flat vectors, written so that their graphs are small."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fieldfold.params import TensorSpec
from fieldfold.task.manifest import Optimizer

_NORM_EPSILON = 1e-6  # as in torch.nn.utils.clip_grad_norm_


def clip_gradient(gradient: Tensor, clip_norm: Tensor) -> Tensor:
    """Scales the gradient to a Euclidean norm of at most `clip_norm`, a scalar; 0 leaves it as it is."""
    total = torch.sqrt((gradient * gradient).sum())
    return gradient * torch.where(clip_norm > 0, torch.clamp(clip_norm / (total + _NORM_EPSILON), max=1.0), 1.0)


def update(  # noqa: PLR0913, PLR0917 -- all that a step knows
    optimizer: Optimizer,
    tensors: Sequence[TensorSpec],
    parameters: Tensor,
    gradient: Tensor,
    state: Sequence[Tensor],
    learning_rate: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """One step: the next parameters and the next state, whose shapes are `signature.optimizer_shapes`.

    Args:
        optimizer: which, and its settings.
        tensors: what the flat vectors are made of.
        parameters: flat, as the gradient.
        gradient: of the loss, clipped.
        state: zeros before the first step.
        learning_rate: a scalar.
    """
    if optimizer.weight_decay:
        decay = optimizer.weight_decay * _decaying(optimizer, tensors, parameters)
        if optimizer.decoupled:
            parameters = parameters * (1.0 - learning_rate * decay)
        else:
            gradient = gradient + parameters * decay
    if optimizer.name == "adam":
        return _adam(optimizer, parameters, gradient, state, learning_rate)
    return _sgd(optimizer, parameters, gradient, state, learning_rate)


def _decaying(optimizer: Optimizer, tensors: Sequence[TensorSpec], like: Tensor) -> Tensor | float:
    """1 where a parameter decays, 0 where not; a plain 1 where all do."""
    if optimizer.decay_vectors or all(len(spec.shape) > 1 for spec in tensors):
        return 1.0
    return torch.cat([like.new_full((spec.size,), float(len(spec.shape) > 1)) for spec in tensors])


def _sgd(
    optimizer: Optimizer, parameters: Tensor, gradient: Tensor, state: Sequence[Tensor], learning_rate: Tensor
) -> tuple[Tensor, list[Tensor]]:
    if not state:
        return parameters - learning_rate * gradient, []
    velocity = optimizer.momentum * state[0] + gradient
    step = gradient + optimizer.momentum * velocity if optimizer.nesterov else velocity
    return parameters - learning_rate * step, [velocity]


def _adam(
    optimizer: Optimizer, parameters: Tensor, gradient: Tensor, state: Sequence[Tensor], learning_rate: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Kingma and Ba, 2015, algorithm 1.

    The state holds the moments as sums of decaying weights, and the sums of the weights themselves: their quotient is
    the corrected moment, a pass over the vectors fewer, and 1 - beta^t would lose three digits in float32.
    """
    first, second, weight1, weight2 = state
    first = optimizer.beta1 * first + gradient
    second = optimizer.beta2 * second + gradient * gradient
    weight1 = optimizer.beta1 * weight1 + 1.0
    weight2 = optimizer.beta2 * weight2 + 1.0
    root = torch.sqrt(weight2)
    step = (learning_rate * root / weight1) * first / (torch.sqrt(second) + optimizer.epsilon * root)
    return parameters - step, [first, second, weight1, weight2]
