"""A model as a file for other programs: safetensors or ONNX, told apart by the name's end."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import numpy as np

from fieldfold.errors import ConfigError, StoreError
from fieldfold.params import Vector
from fieldfold.task.baked import predict_with
from fieldfold.task.bundle import Bundle

ALIGNMENT = 8
"""A safetensors header is filled up with spaces, so that the tensors begin at a multiple of this."""


def check_target(target: Path) -> None:
    """Refuses a file that cannot be written.

    Raises:
        ConfigError: when the name's end says no known form.
        StoreError: when there is a file already.
    """
    if target.suffix not in (".safetensors", ".onnx"):
        raise ConfigError(f"{target}: what kind of file is it to be?", "end the name with .safetensors or .onnx")
    if target.exists():
        raise StoreError(f"{target}: there is a file already", "give a name that is free")


def write_model(bundle: Bundle, values: Vector, target: Path, *, run: str, version: int) -> None:
    """Writes shared parameters (float32, `layout.num_params` elements) to `target`, which must not be there yet.

    Raises:
        ConfigError, StoreError: as of `check_target`, and when the file cannot be written.
        BundleError: when the task has no model that this form could hold.
    """
    check_target(target)
    if target.suffix == ".onnx":
        data = predict_with(bundle, values)
    else:
        data = safetensors(bundle, values, run=run, version=version)
    part = target.with_name(f"{target.name}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.rename(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(f"{target}: cannot be written: {error.strerror}", "check the disk and the folder") from None


def safetensors(bundle: Bundle, values: Vector, *, run: str, version: int) -> bytes:
    """The shared tensors and the frozen ones by their names, in the format of huggingface/safetensors.

    uint64 little-endian: bytes of the header; the header, JSON: name -> dtype, shape, offsets; the tensors.

    Args:
        bundle: the task; `__metadata__` names it, as does the model's run and version.
        values: the shared parameters (float32, `layout.num_params` elements).
        run: in hex.
        version: the version's number.
    """
    manifest = bundle.manifest
    tensors = {**manifest.layout.unflatten(values), **bundle.frozen_values()}
    facts = {"task": manifest.name, "bundle": bundle.digest, "run": run, "version": str(version)}
    header: dict[str, object] = {"__metadata__": facts}
    start = 0
    for name, tensor in tensors.items():
        stop = start + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % ALIGNMENT)
    content = (np.ascontiguousarray(tensor, "<f4").tobytes() for tensor in tensors.values())
    return b"".join([struct.pack("<Q", len(head)), head, *content])
