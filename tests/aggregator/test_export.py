"""Any version as a file: the very bits that every node held then, in forms that other programs read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from aggregator.cli import aggregator as command
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.fold_settings import FoldSettings
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.records import TaskRecord
from aggregator.model import GlobalModel
from aggregator.past import released
from fieldfold.errors import ConfigError, StoreError
from fieldfold.params import Vector, digest
from fieldfold.task.bundle import Bundle
from fieldfold.task.export import safetensors
from fieldfold.task.opening import open_runtime
from fieldfold.task.self_check import read_batch
from tests.aggregator.histories import written
from tests.aggregator.tiny import FIRST, RUN, bundle

TASK = bundle().digest
PREBUILT = Path(__file__).resolve().parents[2] / "examples" / "turbofan" / "turbofan.bundle"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "ledger.sqlite", FedBuff(buffer_size=2), RateCorrectedFedBuff(buffer_size=2))


def export(path: Path, output: Path, *more: str) -> Result:
    return CliRunner().invoke(command, ["export", "--ledger", str(path), "-o", str(output), *more])


def independently_read(data: bytes) -> tuple[dict[str, str], dict[str, Vector]]:
    """safetensors, as its README describes it."""
    (size,) = struct.unpack_from("<Q", data)
    assert size % 8 == 0
    header = json.loads(data[8 : 8 + size])
    facts = header.pop("__metadata__")
    tensors, end = {}, 0
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        assert (start, entry["dtype"]) == (end, "F32"), "no holes"
        tensors[name] = np.frombuffer(data[8 + size + start : 8 + size + stop], "<f4").reshape(entry["shape"])
        end = stop
    assert len(data) == 8 + size + end
    return facts, tensors


def test_every_version_is_what_was_released(path: Path) -> None:
    ledger = Ledger.existing(path)
    newest = ledger.newest_version(TASK)
    assert len(ledger.checkpoints(TASK)) == 3, "of version 0, and the two newest: most versions lie between them"
    for version in range(newest + 1):
        record = ledger.version(TASK, version)
        assert record is not None
        assert digest(released(ledger, bundle(), version)) == record.parameters
    for none in (-1, newest + 1):
        with pytest.raises(StoreError, match=f"there is no version {none}; the newest is {newest}"):
            released(ledger, bundle(), none)
    ledger.close()


def test_safetensors_bear_the_names_of_the_layout(path: Path, tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    assert export(path, output, "--version", "0").output == f"{output}: version 0 of wear\n"
    facts, tensors = independently_read(output.read_bytes())
    assert facts == {"task": "wear", "bundle": TASK, "run": RUN, "version": "0"}
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"weight": (2, 1), "bias": (1,)}
    np.testing.assert_array_equal(np.concatenate([tensors["weight"].ravel(), tensors["bias"]]), FIRST)


def test_the_newest_version_without_a_number(path: Path, tmp_path: Path) -> None:
    ledger = Ledger.existing(path)
    newest = ledger.newest_version(TASK)
    values = released(ledger, bundle(), newest)
    ledger.close()
    assert f"version {newest} of wear" in export(path, tmp_path / "model.safetensors").output
    expected = safetensors(bundle(), values, run=RUN, version=newest)
    assert (tmp_path / "model.safetensors").read_bytes() == expected


def test_onnx_predicts_alone(path: Path, tmp_path: Path) -> None:
    task = Bundle.read(PREBUILT)
    ledger = Ledger(tmp_path / "turbofan.sqlite", "plant")
    model = GlobalModel(task, FoldSettings(FedBuff(), "int8"), 10)
    with ledger.transaction():
        ledger.add_task(TaskRecord(task.digest, "turbofan", task.data))
        model.begin(ledger, RUN)
    ledger.close()
    assert export(ledger.path, tmp_path / "model.onnx").exit_code == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    names = [array.name for array in task.manifest.inputs]
    assert [each.name for each in session.get_inputs()] == names
    batch = {name: read_batch(task)[name] for name in names}
    expected = open_runtime(task).predict(task.initial_parameters(), batch)
    for array, found in zip(task.manifest.outputs, session.run(None, batch), strict=True):
        np.testing.assert_allclose(found, expected[array.name], rtol=1e-6)
    assert export(path, tmp_path / "wear.onnx").exit_code == 1, "a task of these tests has no prediction graph"


def test_what_cannot_be_written(path: Path, tmp_path: Path) -> None:
    taken = tmp_path / "model.onnx"
    taken.write_bytes(b"precious")
    for output, error, told in (
        (taken, StoreError, "there is a file already"),
        (tmp_path / "model.bin", ConfigError, "what kind of file"),
        (tmp_path / "none" / "model.safetensors", StoreError, "cannot be written: No such file"),
    ):
        caught = export(path, output).exception
        assert isinstance(caught, error)
        assert told in str(caught)
    assert taken.read_bytes() == b"precious"
