from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fieldfold.codec import PROFILES, Profile, decode
from fieldfold.codec import encode as encode_with
from fieldfold.errors import CodecError
from fieldfold.params import Vector, as_vector, digest

encode = partial(encode_with, seed=1)
SIZES = [1, 2, 3, 7, 64, 500, 2048, 2049, 70_001]
TARGETS = [1e-3, 0.01, 0.1, 0.5, 0.85, 0.99]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
trained = st.floats(min_value=-1e6, max_value=1e6, width=32)


def vectors(elements: st.SearchStrategy[float]) -> st.SearchStrategy[Vector]:
    return hnp.arrays(np.float32, st.integers(0, 300), elements=elements)


def relative_error(delta: Vector, decoded: Vector) -> float:
    exact = delta.astype(np.float64)
    return float(((exact - decoded) ** 2).sum() / (exact**2).sum())


def shapes_of_deltas(size: int) -> dict[str, Vector]:
    rng = np.random.default_rng(size)
    return {
        "heavy tails": as_vector(rng.standard_t(2.1, size) * 1e-3),
        "gaussian": as_vector(rng.normal(size=size)),
        "signs": as_vector(np.sign(rng.normal(size=size))),
        "one outlier": as_vector(np.concatenate([[1e6], rng.normal(size=size - 1)])),
        "one element": as_vector(np.concatenate([[1e-5], np.zeros(size - 1)])),
        "two values": as_vector(np.concatenate([[5.0], np.full(size - 1, 0.0123)])),
        "tiny": as_vector(rng.laplace(size=size) * 1e-20),
        "huge": as_vector(rng.laplace(size=size) * 1e25),
    }


@settings(deadline=None)
@given(vectors(finite))
def test_lossless_keeps_every_bit(delta: Vector) -> None:
    assert digest(decode(encode(delta, "lossless"), delta.size)) == digest(delta)


@pytest.mark.parametrize("name", PROFILES)
@settings(deadline=None)
@given(delta=vectors(trained))
def test_whatever_goes_in_a_finite_vector_of_its_size_comes_out(name: str, delta: Vector) -> None:
    decoded = decode(encode(delta, name), delta.size)
    assert decoded.dtype == np.float32
    assert decoded.shape == delta.shape
    assert decoded.flags.c_contiguous
    assert np.isfinite(decoded).all()


@settings(deadline=None)
@given(vectors(trained))
def test_float16_rounds_each_element_to_eleven_bits(delta: Vector) -> None:
    decoded = decode(encode(delta, "float16"), delta.size)
    peak = np.abs(delta).max(initial=0)
    assert (np.abs(decoded - delta) <= np.abs(delta) * 2.0**-11 + peak * 2.0**-37 + 2.0**-76).all()


@pytest.mark.parametrize(("name", "max_level"), [("int8", 127), ("int4", 7)])
@settings(deadline=None)
@given(delta=vectors(trained))
def test_uniform_profiles_are_off_by_half_a_step_at_most(name: str, max_level: int, delta: Vector) -> None:
    decoded = decode(encode(delta, name), delta.size)
    step = float(np.abs(delta).max(initial=0)) / max_level
    assert (np.abs(decoded - delta) <= step * 0.5001 + 2.0**-76).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_dead_zone_keeps_its_error_target(size: int, target: float) -> None:
    profile = Profile("under test", "dead_zone", error_target=target)
    for shape, delta in shapes_of_deltas(size).items():
        decoded = decode(encode(delta, profile), size)
        assert relative_error(delta, decoded) <= target * 1.01, shape


@pytest.mark.parametrize("target", [0.1, 0.5, 0.85])
def test_the_dead_zone_uses_up_what_its_target_allows(target: float) -> None:
    delta = shapes_of_deltas(70_001)["gaussian"]
    profile = Profile("under test", "dead_zone", error_target=target)
    assert relative_error(delta, decode(encode(delta, profile), delta.size)) > target * 0.97


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("size", [0, 1, 5, 100_000])
def test_zeros_cost_six_bytes_at_most(name: str, size: int) -> None:
    payload = encode(np.zeros(size, np.float32), name)
    assert len(payload) <= 6
    assert not decode(payload, size).any()


@pytest.mark.parametrize("name", PROFILES)
def test_a_single_parameter_survives(name: str) -> None:
    delta = as_vector([-0.25])
    decoded = decode(encode(delta, name, seed=1), 1)
    assert decoded[0] == pytest.approx(-0.25, rel=0.01)


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "lossless"])
def test_lossy_profiles_take_a_delta_of_subnormals_for_nothing(name: str) -> None:
    assert not decode(encode(as_vector([1e-40, -1e-38]), name), 2).any()


@pytest.mark.parametrize("name", PROFILES)
def test_encoding_twice_gives_the_same_bytes(name: str) -> None:
    delta = shapes_of_deltas(5000)["heavy tails"]
    assert encode(delta, name, seed=3) == encode(delta.copy(), name, seed=3)


def test_strided_input_is_taken() -> None:
    delta = shapes_of_deltas(500)["gaussian"]
    assert encode(delta[::2], "int8") == encode(delta[::2].copy(), "int8")


def test_buffers_travel_as_float16_whatever_the_parameters_do() -> None:
    delta = np.concatenate([shapes_of_deltas(2000)["heavy tails"], as_vector([300.0, 0.5, -7.25])])
    decoded = decode(encode(delta, "frugal", num_trained=2000, seed=1), 2003)
    assert decoded[2000:].tolist() == [300.0, 0.5, -7.25]
    assert (decoded[:2000] == decode(encode(delta[:2000], "frugal", seed=1), 2000)).all()


@pytest.mark.parametrize("num_trained", [0, 1, 499, 500])
def test_any_share_of_buffers_is_possible(num_trained: int) -> None:
    delta = shapes_of_deltas(500)["gaussian"]
    for name in PROFILES:
        decoded = decode(encode(delta, name, num_trained=num_trained), 500)
        assert np.allclose(decoded[num_trained:], delta[num_trained:], rtol=2.0**-11, atol=1e-6)


@pytest.mark.parametrize("num_trained", [-1, 4])
def test_buffers_outside_the_delta_are_refused(num_trained: int) -> None:
    with pytest.raises(CodecError, match="num_trained"):
        encode(as_vector([1, 2, 3]), num_trained=num_trained)


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("size", [1, 100, 200_000])
def test_nan_and_infinity_are_refused_with_their_place(name: str, bad: float, size: int) -> None:
    delta = np.ones(size, np.float32)
    delta[size // 3] = bad
    with pytest.raises(CodecError, match=f"parameter {size // 3}"):
        encode(delta, name)


@pytest.mark.parametrize("name", [name for name in PROFILES if name != "lossless"])
def test_lossy_profiles_refuse_what_has_diverged(name: str) -> None:
    with pytest.raises(CodecError, match="2e\\+38"):
        encode(as_vector([1.0, -2e38]), name)


@pytest.mark.parametrize(
    "delta",
    [np.zeros(3), np.zeros(3, ">f4"), np.zeros((3, 1), np.float32), np.float32(1), [1.0, 2.0], None],
)
def test_anything_but_a_float32_vector_is_refused(delta: Vector) -> None:
    with pytest.raises(CodecError, match="float32"):
        encode(delta)


def test_an_unknown_profile_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(CodecError, match="lossless, float16, int8, unbiased, int4, compensated, balanced, frugal"):
        encode(as_vector([1.0]), "tiny")


@pytest.mark.parametrize(
    ("method", "max_level", "error_target"),
    [
        ("uniform", 0, 0),
        ("dead_zone", 0, 0),
        ("dead_zone", 0, 1),
        ("uniform", 7, 0.5),
        ("float32", 1, 0),
        ("stochastic", 0, 31),
        ("stochastic", 0, 0),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(method: str, max_level: int, error_target: float) -> None:
    with pytest.raises(ValueError, match=r"max_level|error_target"):
        Profile("x", method, "", max_level, error_target)  # type: ignore[arg-type]


def test_a_bound_on_bits_belongs_to_the_dead_zone_only() -> None:
    with pytest.raises(ValueError, match="max_bits"):
        Profile("x", "uniform", max_level=7, max_bits=1.0)


def test_another_number_of_parameters_is_refused() -> None:
    payload = encode(as_vector([1.0, 2.0]))
    with pytest.raises(CodecError, match="holds 2 parameters, the model has 3"):
        decode(payload, 3)


def test_another_format_version_is_refused() -> None:
    payload = encode(as_vector([1.0, 2.0]))
    with pytest.raises(CodecError, match="version 2"):
        decode(bytes([payload[0] + 0x10]) + payload[1:], 2)
