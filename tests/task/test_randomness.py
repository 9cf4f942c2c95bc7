"""Seeded randomness: as even as torch's own, the same in every runtime, and inside attention and LSTMs too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from fieldfold.task.compile.randomness import SeededRandomness, UnseededError, call_keys, hashed_bits
from fieldfold.task.compile.step import plain_attention

SHAPES = [(1 << 14,), (64, 256), (16, 8, 32), (16, 4, 16, 16), (3, 50, 7)]


def draw(shape: tuple[int, ...], seed: int, call: int) -> Tensor:
    """The bits as numbers in [0, 1)."""
    bits = hashed_bits(shape, call_keys(torch.tensor(seed), call // 16)[call % 16])
    return bits.double().flatten() / 2**20


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2**30, 2**31 - 1])
def test_bits_are_even_and_differ_between_elements_seeds_and_calls(shape: tuple[int, ...], seed: int) -> None:
    first = draw(shape, seed, 3)
    count = first.numel()
    assert 0 <= float(first.min()) <= float(first.max()) < 1
    histogram = torch.histc(first, 16, 0, 1)
    assert float(((histogram - count / 16) ** 2 / (count / 16)).sum()) < 45  # chi-square, 15 degrees: p < 1e-4
    for other in (
        draw(shape, seed + 1, 3),
        draw(shape, seed, 4),
        draw(shape, seed, 19),
        first.roll(1),
        first.roll(64),
    ):
        correlation = float(((first - 0.5) * (other - 0.5)).mean()) * 12
        assert abs(correlation) < 4 / count**0.5


def test_rows_and_columns_do_not_show_through() -> None:
    centred = draw((128, 128), 5, 0).reshape(128, 128) - 0.5
    for means in (centred.mean(0), centred.mean(1)):
        assert float((means * means).mean()) * 12 * 128 == pytest.approx(1, abs=0.5)
    corners = centred * centred.roll(1, 0) * centred.roll(1, 1) * centred.roll((1, 1), (0, 1))
    assert abs(float(corners.mean())) * 144 * 128 < 4


def test_seeded_dropout_and_noise_have_the_moments_of_torch_s() -> None:
    ones = torch.ones(64, 256)
    with SeededRandomness(torch.tensor(7)):
        dropped = functional.dropout(ones, 0.25)
        channels = functional.dropout1d(ones.reshape(64, 16, 16), 0.25)
        coins = torch.bernoulli(0.3 * ones)
        noise, uniform = torch.randn_like(ones), torch.rand(64, 256)
    assert float((dropped == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert sorted(set(dropped.flatten().tolist())) == pytest.approx([0, 4 / 3])
    assert torch.equal(channels[:, :, 0], channels[:, :, -1])
    assert float(coins.mean()) == pytest.approx(0.3, abs=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)


def attention(x: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(x, x, x, dropout_p=0.5)


@pytest.mark.parametrize(
    "forward",
    [
        attention,
        nn.MultiheadAttention(8, 2, dropout=0.5, batch_first=True),
        nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True),
        nn.LSTM(8, 8, num_layers=2, dropout=0.5, batch_first=True),
        nn.AlphaDropout(0.5),
    ],
    ids=lambda forward: type(forward).__name__,
)
def test_the_seed_reaches_the_dropout_within(forward: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
    x = torch.linspace(-1, 1, 4 * 6 * 8).reshape(4, 6, 8)

    def run(seed: int) -> Tensor:
        with SeededRandomness(torch.tensor(seed)), plain_attention(), torch.no_grad():
            result = forward(x, x, x) if isinstance(forward, nn.MultiheadAttention) else forward(x)
        return result[0] if isinstance(result, tuple) else result

    torch.manual_seed(1)
    first = run(1)
    torch.manual_seed(2)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))


def test_the_gradient_of_dropout_is_its_mask() -> None:
    x = torch.ones(8, 8, requires_grad=True)
    with SeededRandomness(torch.tensor(3)):
        dropped = functional.dropout(x, 0.5)
        dropped.sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.equal(x.grad, dropped.detach())


def test_what_cannot_be_seeded_is_named() -> None:
    with pytest.raises(UnseededError, match="poisson"), SeededRandomness(torch.tensor(0)):
        torch.poisson(torch.ones(3))
