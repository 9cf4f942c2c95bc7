"""The shipped C-MAPSS FD001 data: what it is, and the protocol of its official test set."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from fieldfold.sensors.dataset import load
from fieldfold.sensors.schema import DataSchema, Feature, RemainingLifeTarget
from fieldfold.sensors.source import DataConfig

DATA = Path(__file__).parents[2] / "examples" / "turbofan" / "data"
SENSORS = (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)
SCHEMA = DataSchema(
    features=tuple(Feature(f"s{n}") for n in SENSORS), window=30, target=RemainingLifeTarget(cap=125, scale=125)
)
COLUMNS: dict[str, str | int] = {f"s{n}": n + 5 for n in SENSORS}
TRAIN = DataConfig(files=("train_FD001.txt.gz",), columns=COLUMNS, series=1, order=2)
TEST = DataConfig(
    files=("test_FD001.txt.gz",), columns=COLUMNS, series=1, order=2, ends="RUL_FD001.txt.gz", windows="last"
)


def test_the_files_are_those_of_the_source_note() -> None:
    noted = re.findall(r"^([0-9a-f]{64})  (\S+)$", (DATA / "SOURCE.txt").read_text(), re.MULTILINE)
    assert sorted(name for _, name in noted) == sorted(path.name for path in DATA.glob("*.gz"))
    for digest, name in noted:
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == digest


def test_the_training_file_is_read_whole_and_fast() -> None:
    elapsed_s = []
    for _ in range(3):
        start = process_time()
        dataset = load(SCHEMA, TRAIN, DATA)
        elapsed_s.append(process_time() - start)
    assert min(elapsed_s) < 0.2
    assert (dataset.report.rows, dataset.report.series) == (20_631, 100)
    assert len(dataset.train) + len(dataset.validation) == 20_631 - 100 * 29
    table = np.loadtxt(DATA / "train_FD001.txt.gz")
    expected = table[np.argsort(table[:, 0], kind="stable")][:, [n + 4 for n in SENSORS]]
    assert np.array_equal(dataset.train.rows, expected)


def test_the_last_windows_of_the_test_file_have_the_official_targets() -> None:
    dataset = load(SCHEMA, TEST, DATA, held_out=True)
    assert len(dataset.test) == 100
    official = np.loadtxt(DATA / "RUL_FD001.txt.gz")
    targets = dataset.test.all()["y"][:, 0] * 125
    assert targets == pytest.approx(np.minimum(official, 125), rel=1e-6)


def test_a_gateway_takes_its_own_engines_of_the_file() -> None:
    config = DataConfig(
        files=("train_FD001.txt.gz",), columns=COLUMNS, series=1, order=2, include_series=(4, 8, 15, 16, 23, 42)
    )
    dataset = load(SCHEMA, config, DATA)
    assert dataset.report.series == 6
    assert dataset.report.rows + dataset.report.dropped_rows["series of other gateways"] == 20_631
    assert len(dataset.validation) > 0
