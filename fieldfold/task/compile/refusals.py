"""What cannot be exported, said in the author's terms: the operator, where it stands, and what to use instead."""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Iterator

from torch import Tensor, fx

from fieldfold.errors import CompileError, FieldfoldError
from fieldfold.task.compile.origins import Origin, OriginTracker, operators, origin_of
from fieldfold.task.compile.randomness import UnseededError
from fieldfold.task.compile.unsupported import UnsupportedError

_GENERAL = "the forward pass, the loss and the metrics must be tensor operations of fixed shapes behind the batch"
_ON_DATA = (
    "the graph is recorded once: use torch.where, clamp or a product with a mask instead of a decision on values"
)
_VARYING = "its result has another shape for other data: keep all elements and multiply by a mask"

_INSTEAD: tuple[tuple[str, str], ...] = (
    (r"_local_scalar_dense|\.item|is_nonzero|\.equal", _ON_DATA),
    (r"nonzero|masked_select|unique|repeat_interleave|bincount", _VARYING),
    (r"_fft_|stft|complex|polar|view_as_real", "multiply by constant matrices of cosines and sines"),
    (r"ctc_loss", "no other form exists: train such a model with torch itself"),
    (
        r"linalg_(?!vector)|cholesky|svd|eigh|_inverse|\.lu_|triangular|\.qr",
        "decompositions of matrices have no ONNX form",
    ),
    (r"_pack_padded|_pad_packed|packed", "give windows of one length, padded where they are short"),
    (r"kthvalue|\.mode|median|histc", "use torch.sort or torch.topk and take the element"),
    (r"fractional_max_pool|max_unpool", "use ordinary pooling and upsampling"),
    (r"adaptive_max_pool", "use max pooling with a fixed window, or average pooling"),
    (r"grid_sampler", "resample with torch.nn.functional.interpolate, to a fixed size"),
    (r"embedding_bag", "use an Embedding, and the mean or the sum of what it gives"),
    (r"cdist", "take the differences with unsqueeze and broadcasting, and the norm of those"),
    (r"cumprod", "use the exponential of the cumsum of logarithms, or a product of few factors"),
    (r"gamma|erfinv|\.i0|special_", "write the function with exp, log, erf and arithmetic"),
)


@contextlib.contextmanager
def untraceable(what: str, tracker: OriginTracker) -> Iterator[None]:
    """Turns what the author's code or torch raises during tracing into CompileError.

    Raises:
        CompileError: naming the graph `what`, the operator and where it stands.
    """
    try:
        yield
    except UnseededError as error:
        raise unseeded(error, tracker.last) from error
    except UnsupportedError as error:
        place = _place(Origin.of_error(error), tracker.last)
        raise CompileError(f"{error.reason} {place} has no ONNX form".replace("  ", " "), error.hint) from error
    except FieldfoldError:
        raise
    except Exception as error:
        place = _place(Origin.of_error(error), tracker.last)
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CompileError(
            f"the {what} graph cannot be made: {_short(tracker.operator)} {place}: "
            f"{type(error).__name__}: {first_line[:200]}",
            _instead(tracker.operator + " " + type(error).__name__),
        ) from error


@contextlib.contextmanager
def untranslatable(what: str, graph: fx.GraphModule) -> Iterator[None]:
    """Turns what the exporter raises into CompileError.

    Raises:
        CompileError: naming the graph `what`, the operator and where it stands.
    """
    _refuse_complex(what, graph)
    try:
        yield
    except Exception as error:
        node = _failed(error) or next((node for name, _, node in operators(graph) if _known(name)), None)
        if node is not None:
            raise formless(what, node) from error
        text = str(error).strip() or type(error).__name__
        raise CompileError(
            f"the {what} graph cannot be made: {type(error).__name__}: {text.splitlines()[0][:200]}", _GENERAL
        ) from error


def _failed(error: BaseException | None) -> fx.Node | None:
    """The node at which the exporter was when it raised; its own text does not say where that comes from."""
    found = None
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            node = frame.f_locals.get("node")
            if isinstance(node, fx.Node) and node.op == "call_function":
                found = node
        error = error.__cause__
    return found


def _refuse_complex(what: str, graph: fx.GraphModule) -> None:
    for _, _, node in operators(graph):
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            raise formless(what, node)


def formless(what: str, node: fx.Node, lacks: str = "has no ONNX form") -> CompileError:
    """The error for an operator of a graph, by the name that it had before torch broke it down."""
    sources = node.meta.get("from_node")
    operator = str(sources[-1].target if sources else node.target)
    reason = f"the {what} graph cannot be made: {_short(operator)} {origin_of(node)} {lacks}"
    return CompileError(reason.replace("  ", " "), _instead(operator))


def unseeded(error: UnseededError, place: Origin) -> CompileError:
    """The error for a random function that the compiler does not know."""
    where = f" {place}" if str(place) else ""
    return CompileError(
        f"the model calls {error}{where}, which cannot be seeded", "use dropout, rand_like or randn_like"
    )


def _place(of_error: Origin, of_operator: Origin) -> Origin:
    """The author's line that raised, or, in the backward pass, that of the operator whose gradient is wanted."""
    return of_error if of_error.line or not str(of_operator) else of_operator


def _short(operator: str) -> str:
    return operator.removeprefix("aten.").removeprefix("prims.").split(".")[0]


def _known(operator: str) -> str | None:
    return next((hint for pattern, hint in _INSTEAD if re.search(pattern, operator)), None)


def _instead(operator: str) -> str:
    return _known(operator) or _GENERAL
