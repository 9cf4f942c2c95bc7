"""Bundles for tests and benchmarks, each built once for all workers of a run, and for later runs on equal sources."""

from __future__ import annotations

import fcntl
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

FOLDER = Path(__file__).resolve().parents[2] / ".cache" / "bundles"
_KEPT_AT_MOST = 120


def built(name: str, make: Callable[[], Task]) -> Bundle:
    """The bundle of a task: from the cache, or built, and so through the parity gate."""
    return Bundle.read(built_path(name, make))


def built_path(name: str, make: Callable[[], Task]) -> Path:
    """Where it lies; `make` and all that it needs of the tests stand in one file."""
    path = FOLDER / f"{name}-{_key(make)}.bundle"
    if path.is_file():
        return path
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be building it
        if not path.is_file():
            _write(path, compile_task(make(), lambda _: None))
    return path


def _write(path: Path, bundle: Bundle) -> None:
    for old in sorted(FOLDER.glob("*.bundle"), key=lambda kept: kept.stat().st_mtime)[:-_KEPT_AT_MOST]:
        old.unlink(missing_ok=True)
    mine = path.with_suffix(f".{os.getpid()}")
    mine.write_bytes(bundle.data)
    mine.replace(path)


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
