from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fieldfold.params import Layout, TensorSpec, as_vector
from fieldfold.params.layout import MAX_PARAMS

LAYOUT = Layout(
    (
        TensorSpec("encoder.weight", (2, 3)),
        TensorSpec("scale", ()),
        TensorSpec("norm.mean", (2,), "buffer"),
    )
)


def test_sizes_and_places() -> None:
    assert LAYOUT.num_params == 9
    assert LAYOUT.num_trained == 7
    assert LAYOUT.offsets == {"encoder.weight": (0, 6), "scale": (6, 7), "norm.mean": (7, 9)}


def test_a_vector_is_seen_as_named_tensors() -> None:
    flat = as_vector(range(9))
    tensors = LAYOUT.unflatten(flat)
    assert tensors["encoder.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["scale"].shape == ()
    tensors["norm.mean"][0] = 70
    assert flat[7] == 70


shapes = st.lists(st.lists(st.integers(1, 4), max_size=3).map(tuple), max_size=6)


@settings(deadline=None)
@given(shapes)
def test_unflattened_tensors_flatten_to_the_same_vector(found: list[tuple[int, ...]]) -> None:
    layout = Layout(tuple(TensorSpec(f"t{index}", shape) for index, shape in enumerate(found)))
    flat = np.random.default_rng(0).standard_normal(layout.num_params).astype(np.float32)
    assert layout.flatten(layout.unflatten(flat)).tobytes() == flat.tobytes()


def test_what_does_not_fit_the_layout_is_refused() -> None:
    tensors = LAYOUT.unflatten(as_vector(range(9)))
    with pytest.raises(ValueError, match=r"shape \(8,\) does not fit 9"):
        LAYOUT.unflatten(as_vector(range(8)))
    with pytest.raises(ValueError, match="tensor scale is missing"):
        LAYOUT.flatten({name: value for name, value in tensors.items() if name != "scale"})
    with pytest.raises(ValueError, match=r"tensor scale has shape \(1,\), the layout says \(\)"):
        LAYOUT.flatten({**tensors, "scale": np.zeros(1, np.float32)})


def decode(*tensors: object) -> Layout:
    return msgspec.json.decode(msgspec.json.encode({"tensors": tensors}), type=Layout)


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ([{"name": "a", "shape": [1]}] * 2, "appears twice"),
        ([{"name": "m", "shape": [1], "kind": "buffer"}, {"name": "w", "shape": [1]}], "buffers must follow"),
        ([{"name": "w", "shape": [100_000, 100_000]}], f"at most {MAX_PARAMS} are allowed"),
        ([{"name": "w", "shape": [0]}], ">= 1"),
        ([{"name": "w", "shape": [-1, -1]}], ">= 1"),
        ([{"name": "w", "shape": [1] * 9}], "length <= 8"),
        ([{"name": "w\n", "shape": [1]}], "regex"),
        ([{"name": "../w", "shape": [1]}], "regex"),
        ([{"name": "w", "shape": [1], "dtype": "int64"}], "unknown field"),
    ],
)
def test_a_layout_from_outside_is_checked(tensors: list[object], reason: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=reason):
        decode(*tensors)
