"""What cannot be exported, said in the author's terms: the operator, where it stands, and what to use instead."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from torch import Tensor, fx

from fieldfold.errors import CompileError, FieldfoldError
from fieldfold.task.compile.origins import Origin, OriginTracker, operators
from fieldfold.task.compile.randomness import UnseededError
from fieldfold.task.compile.unsupported import UnsupportedError

_GENERAL = "the forward pass, the loss and the metrics must be tensor operations of fixed shapes behind the batch"
_ON_DATA = (
    "the graph is recorded once: use torch.where, clamp or a product with a mask instead of a decision on values"
)
_VARYING = "its result has another shape for other data: keep all elements and multiply by a mask"

_INSTEAD: tuple[tuple[str, str], ...] = (
    (r"_local_scalar_dense|item|is_nonzero|equal$", _ON_DATA),
    (r"nonzero|masked_select|unique|repeat_interleave|bincount", _VARYING),
    (r"_fft_|stft|view_as_complex|complex|view_as_real", "multiply by constant matrices of cosines and sines"),
    (r"ctc_loss", "no other form exists: train such a model with torch itself"),
    (r"linalg|cholesky|svd|eigh|_inverse|lu_|triangular|qr", "decompositions of matrices have no ONNX form"),
    (r"_pack_padded|_pad_packed|packed", "give windows of one length, padded where they are short"),
    (r"kthvalue|mode|median|histc", "use torch.sort or torch.topk and take the element"),
    (r"fractional_max_pool|max_unpool", "use ordinary pooling and upsampling"),
    (r"grid_sampler", "resample with torch.nn.functional.interpolate, to a fixed size"),
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
        text, operator = "", ""
        cause: BaseException | None = error
        while cause is not None:
            text = str(cause).strip() or type(cause).__name__
            found = re.search(r"target=torch\.ops\.(\w+\.\w+)", text)
            operator = operator or (found[1] if found else "")
            cause = cause.__cause__
        if not operator:
            raise CompileError(
                f"the {what} graph cannot be made: {type(error).__name__}: {text.splitlines()[0][:200]}", _GENERAL
            ) from error
        place = next((origin for name, origin, _ in operators(graph) if _same(name, operator)), Origin())
        raise _formless(what, operator, place) from error


def _same(one: str, other: str) -> bool:
    """Whether an operator of one is that of the other, or what torch breaks it down into (prims.erf_inv)."""
    return one.rsplit(".", 1)[-1].replace("_", "") == other.rsplit(".", 1)[-1].replace("_", "")


def _refuse_complex(what: str, graph: fx.GraphModule) -> None:
    for operator, place, node in operators(graph):
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            raise _formless(what, operator, place)


def _formless(what: str, operator: str, place: Origin) -> CompileError:
    reason = f"the {what} graph cannot be made: {_short(operator)} {place} has no ONNX form"
    return CompileError(reason.replace("  ", " "), _instead(operator))


def unseeded(error: UnseededError, place: Origin | None = None) -> CompileError:
    """The error for a random function that the compiler does not know."""
    where = f" {place}" if place and str(place) else ""
    return CompileError(
        f"the model calls {error}{where}, which cannot be seeded", "use dropout, rand_like or randn_like"
    )


def _place(of_error: Origin, of_operator: Origin) -> Origin:
    """The author's line that raised, or, in the backward pass, that of the operator whose gradient is wanted."""
    return of_error if of_error.line or not str(of_operator) else of_operator


def _short(operator: str) -> str:
    return operator.removeprefix("aten.").removeprefix("prims.").split(".")[0]


def _instead(operator: str) -> str:
    return next((hint for pattern, hint in _INSTEAD if re.search(pattern, operator)), _GENERAL)
