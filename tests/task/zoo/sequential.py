"""Recurrent networks and a transformer over long windows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, adam, features, mean_squared_error, rmse

AXES = 6


def _signals(window: int) -> DataSchema:
    return DataSchema(
        features=features(*(f"axis_{index}" for index in range(AXES))), window=window, target=ColumnTarget("load")
    )


class Recurrent(nn.Module):
    """A recurrent network of `(batch, window, features)`, and a head on its last step."""

    def __init__(self, network: nn.RNNBase) -> None:
        super().__init__()
        self.network = network
        self.last = nn.Linear(network.hidden_size * (2 if network.bidirectional else 1), 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.network(x)[0][:, -1])
        return result


class Transformer(nn.Module):
    """Two encoder layers with learned positions; dropout in attention too."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self.entry = nn.Linear(AXES, 32)
        self.positions = nn.Parameter(0.02 * torch.randn(window, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.1, batch_first=True, activation="gelu")
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(32, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.layers(self.entry(x) + self.positions).mean(1))
        return result


def _signals_task(name: str, model: Callable[[], nn.Module], window: int, **changes: object) -> Task:
    fields: dict[str, object] = {
        "name": name,
        "model": model,
        "loss": mean_squared_error,
        "metrics": [rmse()],
        "data": _signals(window),
        "optimizer": adam(),
        "learning_rate": 1e-3,
        "batch_size": 32,
    }
    return Task(**{**fields, **changes})  # type: ignore[arg-type]


def gru() -> Task:
    """Two layers of GRU with dropout between them, over 200 steps."""
    return _signals_task("gru", lambda: Recurrent(nn.GRU(AXES, 32, num_layers=2, dropout=0.1, batch_first=True)), 200)


def lstm() -> Task:
    """One LSTM over 200 steps."""
    return _signals_task("lstm", lambda: Recurrent(nn.LSTM(AXES, 32, batch_first=True)), 200)


def lstm_both_ways() -> Task:
    """Two layers of LSTM that read from both ends."""
    return _signals_task(
        "lstm-both-ways",
        lambda: Recurrent(nn.LSTM(AXES, 24, num_layers=2, dropout=0.2, bidirectional=True, batch_first=True)),
        100,
    )


def transformer() -> Task:
    """An encoder over 64 steps."""
    return _signals_task("transformer", lambda: Transformer(64), 64)
