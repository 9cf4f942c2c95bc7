"""The zoo's bundles, each built once and kept by its content."""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

import fieldfold
from fieldfold.task import Bundle
from fieldfold.task.authoring import Task
from fieldfold.task.compile.build import compile_task
from tests.task.zoo.members import MEMBERS

FOLDER = Path(__file__).resolve().parents[3] / ".cache" / "zoo"
_KEPT_AT_MOST = 4 * len(MEMBERS)


def bundle_of(name: str) -> Bundle:
    """The member's bundle: from the cache, or built, and so through the parity gate."""
    return Bundle.read(path_of(name))


def path_of(name: str) -> Path:
    """Where the member's bundle lies."""
    path = FOLDER / f"{name}-{_key(MEMBERS[name])}.bundle"
    if path.is_file():
        return path
    bundle = compile_task(MEMBERS[name](), lambda _: None)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in sorted(FOLDER.glob("*.bundle"), key=lambda kept: kept.stat().st_mtime)[:-_KEPT_AT_MOST]:
        old.unlink()
    written = path.with_suffix(f".{os.getpid()}")
    written.write_bytes(bundle.data)
    written.replace(path)
    return path


def _key(make: Callable[[], Task]) -> str:
    """A digest of all that decides what a build gives: the compiler, the model's source, the libraries."""
    digest = hashlib.sha256(
        repr([sys.version_info[:2], *(m.__version__ for m in (torch, onnx, onnxscript, onnxruntime))]).encode()
    )
    for path in (*_compiler_sources(), Path(inspect.getfile(make))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _compiler_sources() -> Iterator[Path]:
    root = Path(fieldfold.__file__).parent
    for room in ("task", "params", "sensors"):
        yield from sorted((root / room).rglob("*.py"))
