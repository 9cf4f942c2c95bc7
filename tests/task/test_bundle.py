from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fieldfold.errors import BundleError
from fieldfold.params import Layout, TensorSpec
from fieldfold.sensors.arrays import Array
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature
from fieldfold.task.bundle import MAX_MANIFEST_BYTES, Bundle, pack
from fieldfold.task.manifest import LearningRate, Manifest, Metric, Optimizer, SectionName, SelfCheck

HEAD = struct.Struct("<4sHI")

MANIFEST = Manifest(
    format=1,
    name="wear",
    description="",
    kind="regression",
    data=DataSchema((Feature("force"),), 4, ColumnTarget("wear")),
    layout=Layout((TensorSpec("w", (1, 4)), TensorSpec("b", (1,)))),
    local=Layout((TensorSpec("head", (2,)),)),
    frozen=Layout((TensorSpec("body", (3,)),)),
    optimizer_state=(),
    inputs=(Array("x", "float32", (4, 1)),),
    targets=(Array("y", "float32", (1,)),),
    outputs=(Array("output", "float32", (1,)),),
    metrics=(Metric("RMSE", "lower", finish="root"),),
    optimizer=Optimizer("sgd"),
    learning_rate=LearningRate(0.1),
    batch_size=8,
    local_steps=10,
    proximal=0.0,
    clip_norm=0.0,
    privacy=None,
    self_check=SelfCheck((0.5,), 0.25, 0.1, 2),
    sections=(),
    producer="a test",
)
SECTIONS: dict[SectionName, bytes] = {
    "train.onnx": b"train" * 50,
    "evaluate.onnx": b"evaluate" * 50,
    "predict.onnx": b"predict" * 50,
    "programs.torch": b"programs" * 50,
    "parameters": np.arange(10, dtype="<f4").tobytes(),
    "self_check": bytes(2 * 4 * 4 + 2 * 4),
}
WHOLE = pack(MANIFEST, SECTIONS)


def assemble(manifest: dict[str, Any], frames: list[bytes]) -> bytes:
    """A bundle in which manifest and sections are whatever an attacker likes."""
    head = json.dumps(manifest).encode()
    return HEAD.pack(b"FFTB", 1, len(head)) + head + b"".join(frames)


def taken_apart() -> tuple[dict[str, Any], list[bytes]]:
    size = HEAD.unpack_from(WHOLE)[2]
    manifest = json.loads(WHOLE[HEAD.size : HEAD.size + size])
    frames, start = [], HEAD.size + size
    for section in manifest["sections"]:
        frames.append(WHOLE[start : start + section["compressed_bytes"]])
        start += section["compressed_bytes"]
    return manifest, frames


def with_section(index: int, content: bytes, frame: bytes | None = None, **claims: Any) -> bytes:
    """The bundle with one section replaced, its digest put right, and `claims` made about it."""
    manifest, frames = taken_apart()
    frames[index] = zstandard.compress(content) if frame is None else frame
    manifest["sections"][index] |= {
        "size_bytes": len(content),
        "compressed_bytes": len(frames[index]),
        "sha256": hashlib.sha256(content).hexdigest(),
        **claims,
    }
    return assemble(manifest, frames)


def test_what_was_packed_comes_out() -> None:
    bundle = Bundle.from_bytes(WHOLE)
    assert {name: bundle.section(name) for name in SECTIONS} == SECTIONS
    assert bundle.initial_parameters().tolist() == [0, 1, 2, 3, 4]
    assert bundle.initial_local().tolist() == [5, 6]
    assert {name: values.tolist() for name, values in bundle.frozen_values().items()} == {"body": [7, 8, 9]}
    assert msgspec.structs.replace(bundle.manifest, sections=()) == MANIFEST
    assert bundle.digest == hashlib.sha256(WHOLE).hexdigest()


def test_equal_content_gives_equal_bytes() -> None:
    assert pack(MANIFEST, SECTIONS) == WHOLE


def test_taken_apart_and_put_together_is_still_a_bundle() -> None:
    assert Bundle.from_bytes(assemble(*taken_apart())).manifest == Bundle.from_bytes(WHOLE).manifest


@given(st.integers(0, len(WHOLE) - 1))
def test_every_truncation_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        Bundle.from_bytes(WHOLE[:length])


@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_a_flipped_bit_is_refused_or_told_apart_by_the_digest(position: int) -> None:
    damaged = bytearray(WHOLE)
    damaged[position // 8] ^= 1 << position % 8
    try:
        bundle = Bundle.from_bytes(bytes(damaged))
    except BundleError:
        return
    assert bundle.digest != Bundle.from_bytes(WHOLE).digest


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for data in (noise, b"FFTB" + noise, HEAD.pack(b"FFTB", 1, len(noise)) + noise):
        with pytest.raises(BundleError):
            Bundle.from_bytes(data)


def test_a_byte_after_the_end_is_refused() -> None:
    with pytest.raises(BundleError, match="its manifest says"):
        Bundle.from_bytes(WHOLE + b"\0")


def test_another_format_is_named() -> None:
    with pytest.raises(BundleError, match="format 2"):
        Bundle.from_bytes(WHOLE[:4] + b"\2\0" + WHOLE[6:])


def test_a_manifest_beyond_the_limit_is_refused_by_its_size() -> None:
    with pytest.raises(BundleError, match="manifest"):
        Bundle.from_bytes(HEAD.pack(b"FFTB", 1, MAX_MANIFEST_BYTES + 1) + bytes(MAX_MANIFEST_BYTES + 1))


def test_a_section_with_another_digest_is_named() -> None:
    with pytest.raises(BundleError, match=r"train\.onnx does not have its digest"):
        Bundle.from_bytes(with_section(0, b"other", sha256="0" * 64))


def test_a_bomb_is_refused_before_it_is_allocated() -> None:
    frame = zstandard.compress(bytes(50_000_000))
    with pytest.raises(BundleError, match="another size"):
        Bundle.from_bytes(with_section(0, b"train", frame))
    with pytest.raises(BundleError, match="exceeds"):
        Bundle.from_bytes(with_section(0, b"train", frame, size_bytes=1 << 40))


def test_a_frame_that_does_not_state_its_size_is_refused() -> None:
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"train")
    with pytest.raises(BundleError, match="another size"):
        Bundle.from_bytes(with_section(0, b"train", frame))


def test_parameters_must_fit_the_layout() -> None:
    with pytest.raises(BundleError, match="parameters has 16 bytes"):
        Bundle.from_bytes(with_section(4, bytes(16)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_parameters_must_be_finite(value: float) -> None:
    with pytest.raises(BundleError, match="NaN or infinity"):
        Bundle.from_bytes(with_section(4, np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, value], "<f4").tobytes()))


@pytest.mark.parametrize(
    "changes",
    [
        {"surprise": 1},
        {"name": "../wear"},
        {"name": "Wear"},
        {"sections": []},
        {"batch_size": 0},
        {"batch_size": 10**9},
        {"local_steps": -1},
        {"metrics": []},
        {"inputs": [{"name": "../x", "dtype": "float32", "shape": [4, 1]}]},
        {"kind": "classification"},
        {"data": {"features": [{"name": "force"}], "window": 5, "target": {"kind": "column", "name": "wear"}}},
        {"data": {"features": [{"name": "force"}] * 2, "window": 4, "target": {"kind": "column", "name": "wear"}}},
        {"targets": []},
        {
            "batch_size": 65_536,
            "data": {"features": [{"name": "force"}], "window": 9000, "target": {"kind": "column", "name": "wear"}},
            "inputs": [{"name": "x", "dtype": "float32", "shape": [9000, 1]}],
            "self_check": {"losses": [0.5], "evaluation_loss": 0.5, "learning_rate": 0.1, "batch_size": 1},
        },
        {
            "data": {
                "features": [{"name": "force", "input": "seed"}],
                "window": 4,
                "target": {"kind": "column", "name": "wear"},
            },
            "inputs": [{"name": "seed", "dtype": "float32", "shape": [4, 1]}],
        },
        {"outputs": []},
        {"outputs": [{"name": "p.w", "dtype": "float32", "shape": [1]}]},
        {"outputs": [{"name": "output", "dtype": "float32", "shape": [1]}] * 2},
        {"outputs": [{"name": "output", "dtype": "float32", "shape": [0]}]},
        {"inputs": [{"name": "y", "dtype": "float32", "shape": [4, 1]}]},
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [-4, 1]}]},
        {"inputs": [{"name": "x", "dtype": "object", "shape": [4, 1]}]},
        {"inputs": [{"name": "x", "dtype": "float32", "shape": [1 << 60, 4]}]},
        {"optimizer_state": [[1 << 29, 1 << 29]]},
        {"inputs": [{"name": "weights", "dtype": "float32", "shape": [4, 1]}]},
        {"layout": {"tensors": [{"name": "w", "shape": [5], "kind": "buffer"}]}},
        {"local": {"tensors": [{"name": "w", "shape": [2]}]}},
        {"frozen": {"tensors": [{"name": "b", "shape": [3]}]}},
        {"privacy": {"norm": 0.0}},
        {"self_check": {"losses": [1e999], "evaluation_loss": 0.0, "learning_rate": 0.1, "batch_size": 2}},
        {"self_check": {"losses": [0.1] * 101, "evaluation_loss": 0.0, "learning_rate": 0.1, "batch_size": 2}},
    ],
)
def test_a_manifest_that_contradicts_itself_or_a_limit_is_refused(changes: dict[str, Any]) -> None:
    manifest, frames = taken_apart()
    with pytest.raises(BundleError):
        Bundle.from_bytes(assemble(manifest | changes, frames))


def test_sections_come_once_and_in_order() -> None:
    manifest, frames = taken_apart()
    swapped = manifest | {"sections": [manifest["sections"][i] for i in (1, 0, 2, 3, 4, 5)]}
    with pytest.raises(BundleError, match="sections are not"):
        Bundle.from_bytes(assemble(swapped, frames))
    unknown = [*manifest["sections"][:5], manifest["sections"][5] | {"name": "code.py"}]
    with pytest.raises(BundleError, match="valid"):
        Bundle.from_bytes(assemble(manifest | {"sections": unknown}, frames))


def test_a_manifest_nested_without_end_is_refused() -> None:
    text = b"[" * 100_000
    with pytest.raises(BundleError):
        Bundle.from_bytes(HEAD.pack(b"FFTB", 1, len(text)) + text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.bundle: No such file"):
        Bundle.read(tmp_path / "absent.bundle")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "cut.bundle").write_bytes(WHOLE[:-1])
    with pytest.raises(BundleError, match=r"cut\.bundle: the bundle has"):
        Bundle.read(tmp_path / "cut.bundle")
