"""LSTM, GRU and plain recurrent layers over whole windows, one operator a layer and direction.

Unrolled, a window of 200 steps would become a graph of ten thousand nodes. Here the steps are one ONNX Scan forward
and one backward (`recurrent_onnx.py`); what does not depend on the step before, such as the products with the inputs
and all gradients of weights, stands outside them as one matrix product over all steps.

Hochreiter and Schmidhuber, 1997; Cho et al., 2014, with the reset gate behind the product, as torch has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fieldfold.task.compile import recurrent_onnx as operators
from fieldfold.task.compile.unsupported import UnsupportedError

_State = tuple[Tensor, ...]
_Layer = Callable[[Tensor, _State, Sequence[Tensor], bool], tuple[Tensor, _State]]


def recurrent_network(layer: _Layer, states: int) -> Callable[..., Any]:
    """A stand-in for `torch.lstm` and its like: layers, directions, and dropout between layers, in torch's order."""

    def network(  # noqa: PLR0913, PLR0917 -- torch's signature
        x: Tensor,
        state: Any,
        weights: Any,
        has_biases: Any,  # noqa: ARG001 -- torch's signature
        num_layers: int,
        dropout: float,
        train: bool,  # noqa: FBT001 -- torch's signature
        bidirectional: Any,
        batch_first: bool | None = None,  # noqa: FBT001 -- torch's signature
    ) -> Any:
        if batch_first is None:
            raise UnsupportedError(
                "a recurrent layer over a packed sequence",
                "give it windows of one length, padded where they are short",
            )
        given: list[Tensor] = list(state) if states > 1 else [state]
        directions = 2 if bidirectional else 1
        sets = _weight_sets(weights, num_layers * directions, x)
        if batch_first:
            x = x.transpose(0, 1)
        last: list[_State] = []
        for index in range(num_layers):
            outputs = []
            for direction in range(directions):
                place = index * directions + direction
                start = tuple(tensor[place] for tensor in given)
                output, end = layer(x, start, sets[place], direction == 1)
                outputs.append(output)
                last.append(end)
            x = outputs[0] if directions == 1 else torch.cat(outputs, 2)
            if dropout and train and index < num_layers - 1:
                x = functional.dropout(x, dropout)
        if batch_first:
            x = x.transpose(0, 1)
        return (x, *(torch.stack(tensors) for tensors in zip(*last, strict=True)))

    return network


def _weight_sets(weights: Sequence[Tensor], count: int, x: Tensor) -> list[list[Tensor]]:
    """For each layer and direction: of the input, of the state, and the two biases."""
    size = len(weights) // count
    if size not in {2, 4}:
        raise UnsupportedError("an LSTM with proj_size", "leave proj_size out and put a linear layer behind the LSTM")
    sets = [list(weights[start : start + size]) for start in range(0, len(weights), size)]
    if size == 2:
        for one in sets:
            one.extend([x.new_zeros(one[0].shape[0])] * 2)
    return sets


def _previous(y: Tensor, start: Tensor, backwards: bool) -> Tensor:  # noqa: FBT001
    """The state before each step."""
    return torch.cat([y[1:], start.unsqueeze(0)] if backwards else [start.unsqueeze(0), y[:-1]])


def _product(gradient: Tensor, previous: Tensor) -> Tensor:
    # this way round, since ONNX Runtime takes the more time the wider what it turns
    return (previous.flatten(0, 1).t() @ gradient.flatten(0, 1)).t()


# -- LSTM ----------------------------------------------------------------------------------------------------------


def lstm_layer(
    x: Tensor,
    state: _State,
    weights: Sequence[Tensor],
    backwards: bool,  # noqa: FBT001 -- one of `_Layer`
) -> tuple[Tensor, _State]:
    """Torch orders its gates i, f, g, o; here the three sigmoids come first: i, f, o, g.

    The biases are the weights of a further input that is always 1.
    """
    size = weights[1].shape[1]

    def ordered(tensor: Tensor) -> Tensor:
        return torch.cat([tensor[: 2 * size], tensor[3 * size :], tensor[2 * size : 3 * size]])

    of_input, of_state, bias1, bias2 = weights
    x = torch.cat([x, x.new_ones([*x.shape[:-1], 1])], -1)
    of_input = torch.cat([of_input, (bias1 + bias2).unsqueeze(1)], 1)
    y, hidden, cell, *_ = _Lstm.apply(x, *state, ordered(of_input), ordered(of_state), backwards)  # type: ignore[no-untyped-call]
    return y, (hidden, cell)


class _Lstm(torch.autograd.Function):
    """The product with the inputs is within, since its weights' gradient is one product with that of the states'."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, hidden: Tensor, cell: Tensor, of_input: Tensor, of_state: Tensor, backwards: bool) -> Any:  # noqa: FBT001, PLR0913, PLR0917 -- all that the layer has
        last_hidden, last_cell, *saved = operators.lstm(x @ of_input.t(), hidden, cell, of_state.t(), backwards)
        o, squashed = saved[2], saved[5]
        return o * squashed, last_hidden, last_cell, *saved

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, hidden, _, of_input, of_state, ctx.backwards = inputs
        y, _, _, *saved = output
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(x, hidden, of_input, of_state, y, *saved)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, of_hidden: Tensor, of_cell: Tensor, *_: Any) -> Any:
        x, hidden, of_input, of_state, y, i, f, o, candidate, kept, squashed = ctx.saved_tensors
        # per step, what the gates' inputs get of the gradients of cell, cell, hidden and cell
        of_gates = torch.cat(
            [candidate * i * (1 - i), kept * (1 - f), squashed * o * (1 - o), i * (1 - candidate * candidate)], -1
        )
        through = o * (1 - squashed * squashed)
        of_earlier = _previous(of_y, torch.zeros_like(of_hidden), ctx.backwards)
        of_hidden = of_hidden + of_y[0 if ctx.backwards else -1]
        first_hidden, first_cell, gates = operators.lstm_backward(
            of_earlier, of_hidden, of_cell, through, of_gates, f, of_state, ctx.backwards
        )
        of_weights = _product(gates, torch.cat([_previous(y, hidden, ctx.backwards), x], -1))
        of_states, of_inputs = torch.split(of_weights, [hidden.shape[-1], x.shape[-1]], 1)
        return gates @ of_input, first_hidden, first_cell, of_inputs, of_states, None


# -- GRU -----------------------------------------------------------------------------------------------------------


def gru_layer(
    x: Tensor,
    state: _State,
    weights: Sequence[Tensor],
    backwards: bool,  # noqa: FBT001 -- one of `_Layer`
) -> tuple[Tensor, _State]:
    """Gates r, z, n as in torch."""
    of_input, of_state, bias_input, bias_state = weights
    from_input = functional.linear(x, of_input, bias_input)
    y, hidden, *_ = _Gru.apply(from_input, state[0], of_state, bias_state, backwards)  # type: ignore[no-untyped-call]
    return y, (hidden,)


class _Gru(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(from_input: Tensor, hidden: Tensor, weight: Tensor, bias: Tensor, backwards: bool) -> Any:  # noqa: FBT001
        last, sigmoids, candidate, recalled, moved = operators.gru(from_input, hidden, weight.t(), bias, backwards)
        y = candidate + sigmoids[..., hidden.shape[-1] :] * moved
        return y, last, sigmoids, candidate, recalled, moved

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, hidden, weight, _, ctx.backwards = inputs
        y, _, *saved = output
        ctx.mark_non_differentiable(*saved)
        ctx.save_for_backward(hidden, weight, y, *saved)

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, of_last: Tensor, *_: Any) -> Any:
        hidden, weight, y, sigmoids, candidate, recalled, moved = ctx.saved_tensors
        r, z = torch.chunk(sigmoids, 2, -1)
        of_candidate = (1 - z) * (1 - candidate * candidate)
        # per step, what the gates' inputs get of the gradient of the state
        of_gates = torch.cat([of_candidate * recalled * r * (1 - r), moved * z * (1 - z), of_candidate * r], -1)
        first, gates, states = operators.gru_backward(of_y, of_last, of_gates, z, weight, ctx.backwards)
        from_input = torch.cat([gates[..., : 2 * hidden.shape[-1]], states * of_candidate], -1)
        of_weight = _product(gates, _previous(y, hidden, ctx.backwards))
        return from_input, first, of_weight, gates.sum((0, 1)), None


# -- plain ---------------------------------------------------------------------------------------------------------


def plain_layer(activation: str) -> _Layer:
    """The next state is tanh or relu of W x + R h + b."""

    def layer(x: Tensor, state: _State, weights: Sequence[Tensor], backwards: bool) -> tuple[Tensor, _State]:  # noqa: FBT001
        of_input, of_state, bias1, bias2 = weights
        from_input = functional.linear(x, of_input, bias1 + bias2)
        y, hidden = _Plain.apply(from_input, state[0], of_state, activation, backwards)  # type: ignore[no-untyped-call]
        return y, (hidden,)

    return layer


class _Plain(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(from_input: Tensor, hidden: Tensor, weight: Tensor, activation: str, backwards: bool) -> Any:  # noqa: FBT001
        last, y = operators.plain(from_input, hidden, weight.t(), activation, backwards)
        return y, last

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        _, hidden, weight, ctx.activation, ctx.backwards = inputs
        ctx.save_for_backward(hidden, weight, output[0])

    @staticmethod
    def backward(ctx: Any, of_y: Tensor, of_last: Tensor) -> Any:
        hidden, weight, y = ctx.saved_tensors
        slope = 1 - y * y if ctx.activation == "Tanh" else (y > 0).to(y.dtype)
        first, inner = operators.plain_backward(of_y, of_last, slope, weight, ctx.backwards)
        return inner, first, _product(inner, _previous(y, hidden, ctx.backwards)), None, None


NETWORKS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.lstm: recurrent_network(lstm_layer, 2),
    torch.gru: recurrent_network(gru_layer, 1),
    torch.rnn_tanh: recurrent_network(plain_layer("Tanh"), 1),
    torch.rnn_relu: recurrent_network(plain_layer("Relu"), 1),
}
"""Torch's function -> what stands in for it while a graph for ONNX is traced."""
