"""Ready losses and metrics against torch's own, one value an example."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fieldfold.task.objectives import (
    Measure,
    PerExample,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    huber,
    label_accuracy,
    mean_absolute_error,
    mean_squared_error,
    measure,
    rmse,
    weighted_binary_cross_entropy,
    weighted_cross_entropy,
)

ROWS, STEPS, CLASSES = 6, 5, 3
WEIGHTS = [0.5, 1.0, 4.0]


def numbers(*shape: int) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(len(shape)), dtype=torch.float64) * 3


def classes(*shape: int) -> Tensor:
    return torch.randint(CLASSES, (ROWS, *shape), generator=torch.Generator().manual_seed(1))


def per_example(values: Tensor) -> Tensor:
    return values.flatten(1).mean(1)


@pytest.mark.parametrize(
    ("loss", "torchs"),
    [
        (mean_squared_error, functional.mse_loss),
        (mean_absolute_error, functional.l1_loss),
        (huber(0.7), lambda output, target, **options: functional.huber_loss(output, target, delta=0.7, **options)),
    ],
)
@pytest.mark.parametrize("shape", [(1,), (4,), (STEPS, 4)])
def test_losses_of_numbers(loss: PerExample, torchs: PerExample, shape: tuple[int, ...]) -> None:
    output, target = numbers(*shape), numbers(*shape).flip(0)
    torch.testing.assert_close(loss(output, target), per_example(torchs(output, target, reduction="none")))
    with pytest.raises(ValueError, match="an output has shape"):
        loss(output, target[:, :-1])


@pytest.mark.parametrize("shape", [(), (STEPS,)])
def test_losses_of_classes(shape: tuple[int, ...]) -> None:
    scores, target = numbers(*shape, CLASSES), classes(*shape)
    last_to_second = scores.movedim(-1, 1)
    for loss, weight in ((cross_entropy, None), (weighted_cross_entropy(WEIGHTS), torch.tensor(WEIGHTS).double())):
        expected = functional.cross_entropy(last_to_second, target, weight, reduction="none")
        torch.testing.assert_close(loss(scores, target), expected.reshape(ROWS, -1).mean(1))
        with pytest.raises(ValueError, match="scores have one dimension more"):
            loss(scores, numbers(*shape, CLASSES))


@pytest.mark.parametrize("shape", [(3,), (STEPS, 3)])
def test_losses_of_labels(shape: tuple[int, ...]) -> None:
    scores, target = numbers(*shape) * 20, (numbers(*shape).flip(0) > 0).double()
    torchs = functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(
        binary_cross_entropy(scores, target), per_example(torchs(scores, target, reduction="none"))
    )
    weight = torch.tensor(WEIGHTS).double()
    expected = torchs(scores, target, pos_weight=weight, reduction="none")
    torch.testing.assert_close(weighted_binary_cross_entropy(WEIGHTS)(scores, target), per_example(expected))


def test_weights_are_one_a_class_or_label() -> None:
    with pytest.raises(ValueError, match="there are 2 class weights and 3 class scores"):
        weighted_cross_entropy([1, 2])(numbers(CLASSES), classes())
    with pytest.raises(ValueError, match="there are 2 label weights and 3 label scores"):
        weighted_binary_cross_entropy([1, 2])(numbers(3), numbers(3))


def values(each: Measure, output: object, *targets: Tensor) -> list[float]:
    return [float(value) for value in each.values(output, *targets)]


def test_shares_of_what_is_right() -> None:
    scores = torch.tensor([[0.0, 1.0], [3.0, 2.0]])
    assert values(accuracy(), scores, torch.tensor([1, 1])) == [1, 0]
    steps = torch.stack([scores, scores.flip(0)])
    assert values(accuracy(), steps, torch.tensor([[1, 1], [0, 1]])) == [0.5, 1]
    assert values(label_accuracy(), torch.tensor([[-1.0, 2.0, 3.0, -4.0]]), torch.tensor([[0.0, 1, 1, 1]])) == [0.75]


def test_a_measure_of_one_output_and_one_target() -> None:
    outputs = {"life": torch.ones(2, 1), "state": torch.eye(2)}
    life, state = torch.zeros(2, 1), torch.tensor([0, 0])
    assert values(rmse().of("life"), outputs, life, state) == [1, 1]
    assert values(accuracy().of("state", target=1).named("states right"), outputs, life, state) == [1, 0]
    assert accuracy().of("state", target=1).named("states right").metric.name == "states right"


def test_a_measure_of_one_s_own() -> None:
    late = measure(
        "late", lambda output, target: (output < target).float().squeeze(1), better="lower", unit="%", scale=100
    )
    assert values(late, torch.zeros(2, 1), torch.tensor([[1.0], [-1.0]])) == [1, 0]
    assert late.metric.value(0.25) == 25
