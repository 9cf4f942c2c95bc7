"""The bundle file: one task as data, from magic to last byte; see docs/WIRE_FORMAT.md, "Task bundle".

    offset  size  content
    0       4     "FFTB"
    4       2     format, uint16 little-endian: 1
    6       4     size of the manifest in bytes, uint32 little-endian
    10      ...   manifest, JSON in UTF-8
    ...     ...   the sections in the manifest's order, each one zstd frame that states its content size

Nothing follows the last section. Every size is declared in the manifest, bounded here, and checked before anything is
allocated for it.
"""

from __future__ import annotations

import hashlib
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np
import zstandard
from numpy.typing import NDArray

from fieldfold.errors import BundleError
from fieldfold.params import Vector, as_vector, is_finite
from fieldfold.sensors.arrays import Array, input_arrays, target_arrays
from fieldfold.task.manifest import FORMAT, Manifest, Section, SectionName
from fieldfold.task.signature import OUTPUT, RESERVED

MAGIC = b"FFTB"
MAX_BUNDLE_BYTES = 1 << 30
MAX_MANIFEST_BYTES = 4 << 20
MAX_SECTION_BYTES: Mapping[SectionName, int] = {
    "train.onnx": 64 << 20,
    "evaluate.onnx": 64 << 20,
    "predict.onnx": 64 << 20,
    "programs.torch": 64 << 20,
    "parameters": 1 << 30,
    "self_check": 64 << 20,
}
SECTION_NAMES: tuple[SectionName, ...] = get_args(SectionName)
MAX_OUTPUTS = 64
MAX_BATCH_BYTES = 1 << 30
MAX_STATE_PER_PARAMETER = 4
ZSTD_LEVEL = 19
ZSTD_MAX_WINDOW_BYTES = 8 << 20

_HEAD = struct.Struct("<4sHI")
_AGAIN = "fetch or build the bundle again"
_ITEM_BYTES = {"float32": 4, "int64": 8}


class Bundle:
    """A bundle whose every byte has been checked against its manifest.

    Attributes:
        manifest: the head.
        digest: SHA-256 of the file, in hex: what names this bundle on the wire.
        data: the file.
    """

    def __init__(self, data: bytes, manifest: Manifest, body: int) -> None:
        self.data = data
        self.manifest = manifest
        self.digest = hashlib.sha256(data).hexdigest()
        self._body = body

    @classmethod
    def from_bytes(cls, data: bytes) -> Bundle:
        """Reads and checks a whole bundle.

        Raises:
            BundleError: for anything that is not as the manifest, the format and the limits say.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            raise BundleError(f"the bundle has {len(data)} bytes, at most {MAX_BUNDLE_BYTES} are allowed", _AGAIN)
        if len(data) < _HEAD.size or not data.startswith(MAGIC):
            raise BundleError("this is not a task bundle", "give a file that `fieldfold task build` wrote")
        _, version, manifest_bytes = _HEAD.unpack_from(data)
        if version != FORMAT:
            raise BundleError(f"the bundle has format {version}, this program reads {FORMAT}", "update fieldfold")
        body = _HEAD.size + manifest_bytes
        if manifest_bytes > MAX_MANIFEST_BYTES or body > len(data):
            raise BundleError(f"the bundle's manifest of {manifest_bytes} bytes is cut off or too large", _AGAIN)
        manifest = _decode_manifest(data[_HEAD.size : body])
        check_manifest(manifest)
        expected = body + sum(section.compressed_bytes for section in manifest.sections)
        if len(data) != expected:
            raise BundleError(f"the bundle has {len(data)} bytes, its manifest says {expected}", _AGAIN)
        bundle = cls(data, manifest, body)
        for name in SECTION_NAMES:
            bundle.section(name)
        bundle.initial_parameters()
        return bundle

    @classmethod
    def read(cls, path: Path) -> Bundle:
        """Reads a bundle file.

        Raises:
            BundleError: as `from_bytes`, and when the file cannot be read.
        """
        try:
            with path.open("rb") as file:
                data = file.read(MAX_BUNDLE_BYTES + 1)
        except OSError as error:
            raise BundleError(
                f"cannot read {path}: {error.strerror}", "check the path and its permissions"
            ) from error
        try:
            return cls.from_bytes(data)
        except BundleError as error:
            raise BundleError(f"{path}: {error.reason}", error.hint) from error

    def section(self, name: SectionName) -> bytes:
        """The content of a section, decompressed and checked.

        Raises:
            BundleError: when it is not what the manifest says.
        """
        start = self._body
        for section in self.manifest.sections:
            if section.name == name:
                return _open_section(section, self.data[start : start + section.compressed_bytes])
            start += section.compressed_bytes
        raise BundleError(f"the bundle has no section {name}", _AGAIN)

    def initial_parameters(self) -> Vector:
        """The first shared parameters, which travel: float32, `layout.num_params` elements.

        Raises:
            BundleError: when a value of the section is not finite; so do the next two.
        """
        return self._first_values()[0]

    def initial_local(self) -> Vector:
        """The first values of what each gateway keeps to itself: float32, `local.num_params` elements."""
        return self._first_values()[1]

    def frozen_values(self) -> dict[str, NDArray[np.float32]]:
        """The frozen tensors by name."""
        return self.manifest.frozen.unflatten(self._first_values()[2])

    def _first_values(self) -> tuple[Vector, Vector, Vector]:
        """Shared, local and frozen."""
        values = as_vector(np.frombuffer(self.section("parameters"), "<f4"))
        if not is_finite(values):
            raise BundleError("the bundle's first parameters hold NaN or infinity", _AGAIN)
        shared = self.manifest.layout.num_params
        local = shared + self.manifest.local.num_params
        return values[:shared], values[shared:local], values[local:]


def pack(manifest: Manifest, sections: Mapping[SectionName, bytes]) -> bytes:
    """Writes a bundle; the manifest's own list of sections is replaced by that of `sections`.

    Raises:
        BundleError: when what comes out is not a valid bundle.
    """
    # one thread and a fixed level: equal content gives equal bytes
    compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_content_size=True, threads=0)
    frames = {name: compressor.compress(sections[name]) for name in SECTION_NAMES}
    table = tuple(
        Section(name, len(sections[name]), len(frames[name]), hashlib.sha256(sections[name]).hexdigest())
        for name in SECTION_NAMES
    )
    head = msgspec.json.encode(msgspec.structs.replace(manifest, sections=table))
    data = b"".join([_HEAD.pack(MAGIC, FORMAT, len(head)), head, *(frames[name] for name in SECTION_NAMES)])
    return Bundle.from_bytes(data).data


def batch_bytes(arrays: tuple[Array, ...], batch_size: int) -> int:
    """Size of a batch in the section `self_check`."""
    return sum(_ITEM_BYTES[array.dtype] * batch_size * math.prod(array.shape) for array in arrays)


def check_manifest(manifest: Manifest) -> None:
    """What the manifest's types alone do not say.

    Raises:
        BundleError: when its parts contradict each other or a limit.
    """
    if tuple(section.name for section in manifest.sections) != SECTION_NAMES:
        raise BundleError(f"the bundle's sections are not {', '.join(SECTION_NAMES)}", _AGAIN)
    arrays = (*manifest.inputs, *manifest.targets)
    _check_arrays(manifest)
    _check_layouts(manifest)
    expected = {
        "parameters": 4 * sum(layout.num_params for layout in manifest.layouts),
        "self_check": batch_bytes(arrays, manifest.self_check.batch_size),
    }
    for section in manifest.sections:
        limit = MAX_SECTION_BYTES[section.name]
        if max(section.size_bytes, section.compressed_bytes) > limit:
            raise BundleError(f"the bundle's section {section.name} exceeds {limit} bytes", _AGAIN)
        if section.size_bytes != expected.get(section.name, section.size_bytes):
            raise BundleError(
                f"the bundle's section {section.name} has {section.size_bytes} bytes, "
                f"the manifest's arrays need {expected[section.name]}",
                _AGAIN,
            )
    if len({metric.name for metric in manifest.metrics}) != len(manifest.metrics):
        raise BundleError("two of the bundle's metrics bear the same name", "name each metric once")
    check = manifest.self_check
    if not all(map(math.isfinite, (*check.losses, check.evaluation_loss, check.learning_rate, check.tolerance))):
        raise BundleError("the bundle's self-check holds NaN or infinity", _AGAIN)


def _check_layouts(manifest: Manifest) -> None:
    if not manifest.layout.num_trained:
        raise BundleError("the bundle's layout holds no parameter to train and to share", _AGAIN)
    names = [spec.name for layout in manifest.layouts for spec in layout.tensors]
    if len(set(names)) != len(names):
        raise BundleError("a tensor of the bundle is both shared and not", _AGAIN)
    state = sum(_elements(shape) for shape in manifest.optimizer_state)
    if state > MAX_STATE_PER_PARAMETER * (manifest.num_trained + 1):
        raise BundleError(f"the bundle's optimizer keeps {state} numbers", "build it with a listed optimizer")


def _check_arrays(manifest: Manifest) -> None:
    data = manifest.data
    follows = (data.kind, input_arrays(data), target_arrays(data))
    if (manifest.kind, manifest.inputs, manifest.targets) != follows:
        raise BundleError("the bundle's kind, inputs or targets do not follow from its data", _AGAIN)
    taken = {array.name for array in (*manifest.inputs, *manifest.targets)} & set(RESERVED)
    if taken:
        raise BundleError(f"the bundle has an input with the reserved name {min(taken)}", "give it another name")
    names = [array.name for array in manifest.outputs]
    plain = names == [OUTPUT] or all(re.fullmatch(rf"{OUTPUT}\.[A-Za-z0-9_]{{1,64}}", name) for name in names)
    if not names or not plain or len(set(names)) != len(names) or len(names) > MAX_OUTPUTS:
        raise BundleError("the names of the bundle's outputs are not unique plain words", _AGAIN)
    for array in (*manifest.inputs, *manifest.targets, *manifest.outputs):
        _elements(array.shape)
    if batch_bytes((*manifest.inputs, *manifest.targets), manifest.batch_size) > MAX_BATCH_BYTES:
        raise BundleError(
            f"a batch of the bundle's task exceeds {MAX_BATCH_BYTES} bytes", "build it with smaller ones"
        )


def _elements(shape: tuple[int, ...]) -> int:
    if len(shape) > 8 or any(not 1 <= dim <= MAX_BUNDLE_BYTES for dim in shape):
        raise BundleError(f"the bundle names an array of shape {shape}"[:200], _AGAIN)
    return math.prod(shape)


def _decode_manifest(text: bytes) -> Manifest:
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"the bundle's manifest is not valid: {error}", _AGAIN) from error


def _open_section(section: Section, frame: bytes) -> bytes:
    try:
        # the frame's own claim decides how much is allocated, so it comes first
        if zstandard.frame_content_size(frame) != section.size_bytes:
            raise BundleError(f"the bundle's section {section.name} states another size than the manifest", _AGAIN)
        decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_MAX_WINDOW_BYTES)
        content = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BundleError(f"the bundle's section {section.name} does not decompress: {error}", _AGAIN) from error
    if len(content) != section.size_bytes or hashlib.sha256(content).hexdigest() != section.sha256:
        raise BundleError(f"the bundle's section {section.name} does not have its digest", _AGAIN)
    return content
