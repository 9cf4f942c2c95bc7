"""Real local training under FedBuff (Nguyen et al., 2022) with a schedule that is the same for every method."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.learning.data import Federation, Shard
from benchmarks.learning.downlink import Broadcast, exact
from benchmarks.learning.methods import Send
from benchmarks.learning.models import Training
from fieldfold.params import Vector

BUFFER_SIZE = 5
STALENESS_EXPONENT = 0.5
PACE_SPREAD = 0.5
"""Standard deviation of the logarithm of a node's time for an update; a draw of its own for each update adds 0.2."""

_JITTER = 0.2
_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)
_EPSILON = 1e-8


class Point(NamedTuple):
    """The model after a step of the server.

    Attributes:
        updates: that had arrived.
        bytes_up: of all of them together.
        bytes_down: what the server sends to a node that holds the version before.
        released: (n,) float32, what the nodes then hold.
        accuracy: of that, in per cent.
    """

    updates: int
    bytes_up: int
    bytes_down: int
    released: Vector
    accuracy: float


class Trainee:
    """A model whose parameters and gradients lie in one flat vector each."""

    def __init__(self, training: Training, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = training.build()
        self.training = training
        parameters = list(self.module.parameters())
        self.sizes = [parameter.numel() for parameter in parameters]
        self.flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
        self.gradient = torch.zeros_like(self.flat)
        start = 0
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.data = self.flat[start:end].view_as(parameter)
            parameter.grad = self.gradient[start:end].view_as(parameter)
            start = end
        self._loss = nn.CrossEntropyLoss()

    def train(self, base: Vector, shard: Shard, version: int, seed: int) -> Vector:
        """The delta of a few local steps from `base`."""
        training = self.training
        generator = torch.Generator().manual_seed(seed)
        rate = training.learning_rate * 0.5 ** (version / training.half_life)
        start = torch.from_numpy(base)
        self.flat.copy_(start)
        first, second = torch.zeros_like(start), torch.zeros_like(start)
        for step in range(1, training.local_steps + 1):
            batch = torch.randint(len(shard.classes), (training.batch_size,), generator=generator)
            self.gradient.zero_()
            self._loss(self.module(shard.inputs[batch]), shard.classes[batch]).backward()
            if training.optimizer == "sgd":
                first.mul_(_MOMENTUM).add_(self.gradient)
                self.flat.sub_(first, alpha=rate)
                continue
            first.lerp_(self.gradient, 1 - _BETAS[0])
            second.lerp_(self.gradient.square(), 1 - _BETAS[1])
            unbiased = (second / (1 - _BETAS[1] ** step)).sqrt_().add_(_EPSILON)
            self.flat.addcdiv_(first, unbiased, value=-rate / (1 - _BETAS[0] ** step))
        delta: Vector = (self.flat - start).numpy()
        return delta

    def accuracy(self, parameters: Vector, test: Shard) -> float:
        """Per cent of the test that is classified right."""
        self.flat.copy_(torch.from_numpy(parameters))
        with torch.no_grad():
            return float((self.module(test.inputs).argmax(1) == test.classes).float().mean()) * 100


def arrivals(nodes: int, seed: int) -> Iterator[int]:
    """Nodes in the order in which their updates arrive; each starts its next as soon as it has sent one."""
    rng = np.random.default_rng([seed, 3])
    pace = np.exp(rng.normal(0, PACE_SPREAD, nodes))
    waiting = [(pace[node] * rng.uniform(), node) for node in range(nodes)]
    heapq.heapify(waiting)
    while True:
        now, node = heapq.heappop(waiting)
        yield node
        heapq.heappush(waiting, (now + pace[node] * np.exp(rng.normal(0, _JITTER)), node))


def learn(  # noqa: PLR0913 - two say what is trained, two how it travels, two what is drawn
    training: Training,
    federation: Federation,
    send: Send,
    seed: int,
    *,
    batches: int = 0,
    broadcast: Broadcast = exact,
) -> Iterator[Point]:
    """One run, step by step. Nodes train from what `broadcast` makes of the server's model; that is also judged.

    Model, arrivals and batches come from `seed`; `batches` other than 0 draws other batches and leaves the rest.
    """
    trainee = Trainee(training, seed)
    model: Vector = trainee.flat.numpy().copy()
    released = model
    pulled = dict.fromkeys(range(len(federation.nodes)), (0, model))
    buffer: list[Vector] = []
    version = bytes_up = 0
    for update, node in zip(range(training.updates), arrivals(len(federation.nodes), seed), strict=False):
        base_version, base = pulled[node]
        delta = trainee.train(
            base, federation.nodes[node], base_version, (seed + 1000 * batches) * 1_000_003 + update
        )
        size, arrived = send(node, delta)
        bytes_up += size
        buffer.append(arrived * np.float32((1 + version - base_version) ** -STALENESS_EXPONENT))
        if len(buffer) == BUFFER_SIZE:
            model = model + np.mean(buffer, axis=0, dtype=np.float32)
            version += 1
            buffer.clear()
            size, released = broadcast(model, released)
            yield Point(update + 1, bytes_up, size, released, trainee.accuracy(released, federation.test))
        pulled[node] = (version, released)
