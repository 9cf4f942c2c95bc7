"""A bundle's prediction graph with the model's values baked in: a file that any ONNX runtime predicts with, alone.

Inputs of the graph become initializers. That is done on the bytes, without the package onnx: an ONNX file is a
protobuf message, of which one must know where graph and inputs lie, and how a tensor is written. In onnx.proto
ModelProto.graph is field 7, GraphProto.initializer 5 and .input 11, ValueInfoProto.name 1, TensorProto.dims 1,
.data_type 2, .name 8 and .raw_data 9.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import BundleError
from fieldfold.params import Vector
from fieldfold.task.bundle import Bundle
from fieldfold.task.signature import BUFFERS, FROZEN, PARAMETERS

MAX_FILE_BYTES = (1 << 31) - 1
"""What a protobuf message may have."""
_GRAPH, _INITIALIZER, _INPUT, _NAME = 7, 5, 11, 1
_DIMS, _DATA_TYPE, _TENSOR_NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


def predict_with(bundle: Bundle, released: Vector) -> bytes:
    """An ONNX file that takes a batch's inputs alone and gives the model's outputs.

    Args:
        bundle: the task.
        released: the shared parameters (float32, `layout.num_params` elements).

    Raises:
        BundleError: when the task keeps part of the model on the gateways, or the file would be too large.
    """
    manifest = bundle.manifest
    if manifest.local.tensors:
        raise BundleError(
            f"the task keeps {manifest.local.tensors[0].name} on the gateways: no file elsewhere holds a whole model",
            "export the shared parameters as safetensors",
        )
    trained = manifest.layout.num_trained
    values: dict[str, NDArray[np.float32]] = {PARAMETERS: released[:trained], BUFFERS: released[trained:]}
    values |= {FROZEN + name: tensor for name, tensor in bundle.frozen_values().items()}
    graph = bundle.section("predict.onnx")
    if len(graph) + sum(value.nbytes for value in values.values()) > MAX_FILE_BYTES - (1 << 20):
        raise BundleError("the model is too large for one ONNX file", "export it as safetensors")
    try:
        return _bake(graph, {name: value for name, value in values.items() if value.size})
    except (IndexError, ValueError) as error:
        raise BundleError(f"the bundle's prediction graph is no ONNX model: {error}", "build it again") from None


def _bake(model: bytes, values: Mapping[str, NDArray[np.float32]]) -> bytes:
    """Gives every graph input that `values` names its value, and takes it from the inputs."""
    parts = []
    for number, start, stop, content in _fields(model):
        if number == _GRAPH:
            parts.append(_message(_GRAPH, _bake_graph(model[slice(*content)], values)))
        else:
            parts.append(model[start:stop])
    if all(number != _GRAPH for number, *_ in _fields(model)):
        raise ValueError("it holds no graph")
    return b"".join(parts)


def _bake_graph(graph: bytes, values: Mapping[str, NDArray[np.float32]]) -> bytes:
    parts = []
    for number, start, stop, content in _fields(graph):
        name = _input_name(graph[slice(*content)]) if number == _INPUT else ""
        if name in values:
            parts.append(_message(_INITIALIZER, _tensor(name, values[name])))
        else:
            parts.append(graph[start:stop])
    return b"".join(parts)


def _input_name(value_info: bytes) -> str:
    return next(
        value_info[slice(*content)].decode() for number, _, _, content in _fields(value_info) if number == _NAME
    )


def _tensor(name: str, value: NDArray[np.float32]) -> bytes:
    dims = b"".join(_key(_DIMS, _VARINT) + _varint(size) for size in value.shape)
    data_type = _key(_DATA_TYPE, _VARINT) + _varint(_FLOAT)
    raw = np.ascontiguousarray(value, "<f4").tobytes()
    return dims + data_type + _message(_TENSOR_NAME, name.encode()) + _message(_RAW_DATA, raw)


# -- protobuf --------------------------------------------------------------------------------------------------------


def _fields(message: bytes) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
    """Each field: its number, where it starts and stops, and where its content does.

    Raises:
        ValueError, IndexError: when this is no message.
    """
    place = 0
    while place < len(message):
        start = place
        key, place = _read_varint(message, place)
        number, kind = key >> 3, key & 7
        begin = place
        if kind == _VARINT:
            _, place = _read_varint(message, place)
        elif kind == _LENGTH:
            size, begin = _read_varint(message, place)
            place = begin + size
        elif kind in (_FIXED32, _FIXED64):
            place += 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field of kind {kind}")
        if place > len(message):
            raise ValueError("it is cut off")
        yield number, start, place, (begin, place)


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _message(number: int, content: bytes) -> bytes:
    return _key(number, _LENGTH) + _varint(len(content)) + content


def _key(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
