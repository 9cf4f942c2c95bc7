"""The zoo: a model of every family that a gateway may train, each built once and kept by its content.

`python -m benchmarks.train_step` measures the same models.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx
import onnxruntime
import onnxscript
import torch

import fieldfold
from fieldfold.task import Bundle
from fieldfold.task.authoring import Task
from fieldfold.task.compile.build import compile_task
from tests.task.zoo import convolutional, dense, images, sequential, several

MEMBERS: Mapping[str, Callable[[], Task]] = {
    "logistic-regression": dense.logistic_regression,
    "perceptron": dense.perceptron,
    "autoencoder": several.autoencoder,
    "embedding": several.embedding,
    "two-heads": several.two_heads,
    "tied": several.tied,
    "cnn-batch-norm": convolutional.cnn_batch_norm,
    "cnn-group-norm": convolutional.cnn_group_norm,
    "temporal-convolutions": convolutional.temporal_convolutions,
    "inception-time": convolutional.inception_time,
    "separable": convolutional.separable,
    "u-net": convolutional.u_net,
    "lenet": images.lenet,
    "resnet": images.resnet,
    "gru": sequential.gru,
    "lstm": sequential.lstm,
    "lstm-both-ways": sequential.lstm_both_ways,
    "transformer": sequential.transformer,
}
FOLDER = Path(__file__).resolve().parents[3] / ".cache" / "zoo"
_KEPT_AT_MOST = 4 * len(MEMBERS)


def bundle_of(name: str) -> Bundle:
    """The member's bundle: from the cache, or built, and so through the parity gate."""
    path = FOLDER / f"{name}-{_key(MEMBERS[name])}.bundle"
    if path.is_file():
        return Bundle.read(path)
    bundle = compile_task(MEMBERS[name](), lambda _: None)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in sorted(FOLDER.glob("*.bundle"), key=lambda kept: kept.stat().st_mtime)[:-_KEPT_AT_MOST]:
        old.unlink()
    written = path.with_suffix(f".{os.getpid()}")
    written.write_bytes(bundle.data)
    written.replace(path)
    return bundle


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
