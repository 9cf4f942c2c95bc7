"""What cannot be exported is refused with its line in the model's source and with what to use instead."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from fieldfold.errors import CompileError
from fieldfold.task.authoring import ColumnTarget, DataSchema, Task, features, mean_squared_error, rmse, sgd
from fieldfold.task.compile.build import compile_task

WINDOW = 4
DATA = DataSchema(features("force", "heat"), WINDOW, ColumnTarget("wear"))
DOCUMENT = (Path(__file__).parents[2] / "docs/TASKS.md").read_text(encoding="utf-8")

WAVES, ELEMENT, NONE = "cosines and sines", "torch.sort or torch.topk", "decompositions of matrices"
MASK, POOLING, ARITHMETIC, SEEDED = "multiply by a mask", "pool", "exp, log, erf", "use dropout, rand_like"


class Model(nn.Module):
    """Does something to `(batch, 4, 2)` and takes a linear function of what comes out."""

    def __init__(self, first: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = first
        self.scale = nn.Parameter(torch.ones(2))
        self.last = nn.Linear(first(torch.randn(2, WINDOW, 2)).flatten(1).shape[1], 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.first(x * self.scale).flatten(1))
        return result


class Layer(nn.Module):
    """A layer of torch's before the last, which is in it the module `layer`."""

    def __init__(self, layer: nn.Module, taken: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.taken = layer, taken
        self.last = nn.LazyLinear(1)
        self(torch.randn(2, WINDOW, 2))

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.taken(self.layer, x).flatten(1))
        return result


def square(x: Tensor) -> Tensor:
    return x.transpose(1, 2) @ x + 3 * torch.eye(2, dtype=x.dtype)


def ctc(x: Tensor) -> Tensor:
    ones = torch.ones(len(x), 1, dtype=torch.long)
    return functional.ctc_loss(x.transpose(0, 1).log_softmax(-1), ones, ones[:, 0] * WINDOW, ones[:, 0]) + x


def sampled(x: Tensor) -> Tensor:
    return functional.grid_sample(x[:, None], x[:, None].expand(-1, 4, 4, 2).tanh(), align_corners=False)


def categories(x: Tensor) -> Tensor:
    return (x[:, :, 0] > 0).long()


FUNCTIONS: Mapping[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "fft": (lambda x: torch.fft.rfft(x, dim=1).abs(), WAVES),
    "stft": (lambda x: torch.stft(x[:, :, 0], 4, window=torch.ones(4).to(x), return_complex=True).abs(), WAVES),
    "complex": (lambda x: torch.view_as_complex(x).abs(), WAVES),
    "median": (lambda x: x.median(1)[0], ELEMENT),
    "kthvalue": (lambda x: x.kthvalue(2, 1)[0], ELEMENT),
    "mode": (lambda x: x.mode(1)[0], ELEMENT),
    "histc": (lambda x: x + torch.histc(x.detach(), 4)[0], ELEMENT),
    "linalg.inv": (lambda x: torch.linalg.inv(square(x)), NONE),
    "svd": (torch.linalg.svdvals, NONE),
    "cholesky": (lambda x: torch.linalg.cholesky(square(x)), NONE),
    "qr": (lambda x: torch.linalg.qr(x)[1], NONE),
    "det": (lambda x: torch.linalg.det(square(x)).tanh()[:, None], NONE),
    "ctc_loss": (ctc, "train such a model with torch itself"),
    "nonzero": (lambda x: x + 0.01 * x.nonzero().to(x).mean(), MASK),
    "masked_select": (lambda x: x + 0.01 * x.masked_select(x > 0).mean(), MASK),
    "unique": (lambda x: x + 0.01 * torch.unique(x.detach()).mean(), MASK),
    "bincount": (lambda x: x + 0.01 * torch.bincount(categories(x).flatten())[0], MASK),
    "grid_sample": (sampled, "interpolate"),
    "adaptive_max_pool": (lambda x: functional.adaptive_max_pool1d(x.transpose(1, 2), 3), POOLING),
    "fractional_max_pool": (
        lambda x: functional.fractional_max_pool2d(square(x)[:, None], 1, output_size=1),
        POOLING,
    ),
    "poisson": (lambda x: torch.poisson(x.abs()), SEEDED),
    "gumbel_softmax": (functional.gumbel_softmax, SEEDED),
    "cdist": (lambda x: torch.cdist(x, x), "broadcasting"),
    "cumprod": (lambda x: x.cumprod(1), "cumsum"),
    "lgamma": (lambda x: torch.lgamma(x.abs() + 1), ARITHMETIC),
    "digamma": (lambda x: torch.digamma(x.abs() + 1), ARITHMETIC),
    "erfinv": (lambda x: torch.erfinv(x.tanh() / 2), ARITHMETIC),
}

LAYERS: Mapping[str, tuple[Callable[[], nn.Module], str]] = {
    "pack_padded_sequence": (
        lambda: Layer(
            nn.GRU(2, 3, batch_first=True),
            lambda layer, x: layer(pack_padded_sequence(x, torch.full((len(x),), WINDOW), batch_first=True))[1][0],
        ),
        "windows of one length",
    ),
    "proj_size": (
        lambda: Layer(nn.LSTM(2, 3, batch_first=True, proj_size=2), lambda layer, x: layer(x)[0]),
        "linear layer behind",
    ),
    "Embedding(scale_grad_by_freq=True)": (
        lambda: Layer(nn.Embedding(2, 3, scale_grad_by_freq=True), lambda layer, x: layer(categories(x))),
        "leave scale_grad_by_freq at False",
    ),
    "EmbeddingBag": (
        lambda: Layer(nn.EmbeddingBag(2, 3), lambda layer, x: layer(categories(x))),
        "use an Embedding",
    ),
}


def refusal_of(model: Callable[[], nn.Module]) -> CompileError:
    task = Task(
        name="refused",
        model=model,
        loss=mean_squared_error,
        metrics=[rmse()],
        data=DATA,
        optimizer=sgd(),
        learning_rate=0.01,
        batch_size=4,
    )
    with pytest.raises(CompileError) as caught:
        compile_task(task, lambda _: None)
    return caught.value


@pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_refused_by_its_line(name: str) -> None:
    function, instead = FUNCTIONS[name]
    error = refusal_of(lambda: Model(function))
    assert f"in Model ({Path(__file__).name}:" in error.reason
    assert "prims" not in error.reason
    assert instead in error.hint


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature", "ignore:LSTM with projections")
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_refused_by_its_name_and_line(name: str) -> None:
    make, instead = LAYERS[name]
    error = refusal_of(make)
    assert re.search(rf" in (layer|Layer) \({Path(__file__).name}:", error.reason)
    assert instead in error.hint


def test_every_row_of_the_document_is_refused_here() -> None:
    rows = DOCUMENT[DOCUMENT.index("| what | instead |") :].splitlines()[2:]
    told = {name for row in rows for name in re.findall("`([^`]+)`", row.split(" |")[0])}
    assert told == FUNCTIONS.keys() | LAYERS.keys()
