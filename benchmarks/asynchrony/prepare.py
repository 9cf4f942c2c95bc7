"""Bundles and CSV files that the scenarios name, made once from the data in its own form."""

from __future__ import annotations

import csv
import gzip
import shutil
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.data import DIGITS
from fieldfold.task.compile.build import build_file

FOLDER = Path(".cache/benchmarks/asynchrony")
TASKS = Path(__file__).parent / "tasks"
ENGINES = Path("examples/turbofan")
HELD_OUT = 0.25
"""Share of the examples that score the model; drawn once, so that all seeds are scored on the same."""
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
FINDINGS = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
"""The three that most hospitals did not note are left out."""

Rows: TypeAlias = Sequence[Sequence[object]]
Pixels: TypeAlias = NDArray[np.float32]
"""(images, pixels)."""


def turbofan() -> None:
    """The example's own."""
    if not (FOLDER / "turbofan.bundle").exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        shutil.copy(ENGINES / "turbofan.bundle", FOLDER)
        for name in ("train_FD001.txt.gz", "test_FD001.txt.gz", "RUL_FD001.txt.gz"):
            shutil.copy(ENGINES / "data" / name, FOLDER)


def digits() -> None:
    """Those of 8 x 8 pixels, from 0 to 1."""
    _images("digits", DIGITS, lambda pixels: (pixels / 16).astype(np.float32))


def mnist(source: Path) -> None:
    """Two by two pixels made one, from 0 to 1."""

    def smaller(pixels: Pixels) -> Pixels:
        squares: Pixels = pixels.reshape(-1, 14, 2, 14, 2).mean((2, 4), dtype=np.float32) / np.float32(255)
        return squares.reshape(len(pixels), -1)

    _images("mnist", source, smaller)


def heart(source: Path) -> None:
    """Each hospital is a series of its own; a finding that was not noted gets its median in that hospital."""
    train: list[Sequence[object]] = []
    test: list[Sequence[object]] = []
    for hospital in HOSPITALS:
        with (source / f"processed.{hospital}.data").open(encoding="ascii") as lines:
            patients = list(csv.DictReader(lines))
        usual = {name: _median(patient[name] for patient in patients) for name in FINDINGS}
        rng = np.random.default_rng(0)
        is_test = rng.permutation(len(patients)) < HELD_OUT * len(patients)
        for patient, held_out in zip(patients, is_test, strict=True):
            found = [number if (number := _number(patient[name])) is not None else usual[name] for name in FINDINGS]
            row = [hospital, *found, "yes" if float(patient["target"]) > 0 else "no"]
            (test if held_out else train).append(row)
    _write("heart", ("hospital", *FINDINGS, "disease"), train, test)


def _images(name: str, source: Path, scaled: Callable[[Pixels], Pixels]) -> None:
    if (FOLDER / f"{name}.bundle").exists():
        return
    with gzip.open(source, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    order = np.random.default_rng(0).permutation(len(table))
    pixels, labels = scaled(table[order, :-1]), table[order, -1].astype(int)
    rows = [[*(f"{value:.4g}" for value in image), label] for image, label in zip(pixels, labels, strict=True)]
    cut = round(HELD_OUT * len(rows))
    _write(name, (*(f"p{place}" for place in range(pixels.shape[1])), "digit"), rows[cut:], rows[:cut])


def _write(name: str, header: Sequence[str], train: Rows, test: Rows) -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("test", test)):
        with (FOLDER / f"{name}-{part}.csv").open("w", newline="", encoding="ascii") as file:
            csv.writer(file).writerows([header, *rows])
    (FOLDER / f"{name}.bundle").write_bytes(build_file(TASKS / f"{name}.py", lambda _stage: None).bundle.data)


def _number(cell: str) -> float | None:
    return float(cell) if cell.strip() not in {"", "?"} else None


def _median(cells: Iterable[str]) -> float:
    noted = [number for cell in cells if (number := _number(cell)) is not None]
    return statistics.median(noted) if noted else 0.0
