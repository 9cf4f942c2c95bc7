"""From a configuration to windows that can be trained on."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fieldfold.errors import DataError
from fieldfold.sensors import files
from fieldfold.sensors.report import (
    MAX_LISTED_FILES,
    DataReport,
    PartReport,
    describe_drops,
    describe_features,
    describe_targets,
)
from fieldfold.sensors.schema import DataSchema
from fieldfold.sensors.source import DataConfig, Floats, Reading, Series
from fieldfold.sensors.split import PARTS, Part, Segment, split
from fieldfold.sensors.statistics import FeatureSums, Normalisation, sums_of
from fieldfold.sensors.windows import Cut, Windows, cut, num_columns, origins, target_rows, too_few

SHORT_SERIES = "shorter than a window"
GAP = "gap between the parts of a single series"

Float = TypeVar("Float", bound=np.floating[Any])


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A gateway's data, split and cut; the parts share their rows.

    Attributes:
        schema: what the task asks of it.
        sums: over the rows of the train part, before any normalisation.
    """

    schema: DataSchema
    train: Windows
    validation: Windows
    test: Windows
    sums: FeatureSums
    report: DataReport

    def normalised(self, normalisation: Normalisation) -> Dataset:
        """The same windows over one float32 copy of the rows; drop the original to free its memory.

        Raises:
            DataError: when the number of features differs.
        """
        rows = normalisation.over(self.schema.numeric, len(self.schema.features)).apply(self.train.rows)
        return replace(
            self,
            train=replace(self.train, rows=rows),
            validation=replace(self.validation, rows=rows),
            test=replace(self.test, rows=rows),
        )


def load(schema: DataSchema, config: DataConfig, base: Path, *, held_out: bool = False) -> Dataset:
    """Reads, splits and cuts the files that `config` names, relative to the folder `base`.

    With `held_out` nothing trains and nothing is split off: every window is in the test part.

    Raises:
        DataError: when files, columns or cells are not what the task needs, or give no window at all.
        ConfigError: for column settings that do not suit the task.
    """
    reading = files.read(schema, config, base)
    return assemble(schema, reading, last_only=config.windows == "last", held_out=held_out)


def assemble(schema: DataSchema, reading: Reading, *, last_only: bool = False, held_out: bool = False) -> Dataset:
    """Splits and cuts what any source has read; `last_only` keeps the last window of each segment.

    Raises:
        DataError: when there is not a single window.
    """
    segments = _segments(schema, reading.series, held_out=held_out)
    rows = _joined([series.values for series in reading.series], len(schema.features), np.float64)
    targets = _joined([target_rows(series, schema) for series in reading.series], num_columns(schema), np.float32)
    cuts: dict[Part, list[tuple[int, Cut]]] = {part: [] for part in PARTS}
    train_rows: list[Floats] = []
    offset = 0
    for series in reading.series:
        for segment in segments[series.id]:
            cuts[segment.part].append((offset, cut(series, segment, schema, last_only=last_only)))
            if segment.part == "train":
                train_rows.append(series.values[segment.start : segment.stop])
        offset += len(series.values)
    parts = {part: _windows(schema, rows, targets, cuts[part]) for part in PARTS}
    report = _report(schema, reading, segments, parts, cuts)
    if not any(map(len, parts.values())):
        raise _no_windows(schema, report)
    numbers = (values[:, schema.numeric] for values in train_rows)
    return Dataset(schema, **parts, sums=sums_of(numbers, len(schema.numeric)), report=report)


def require_batch(dataset: Dataset, batch_size: int) -> None:
    """Refuses data whose train part does not fill one batch.

    Raises:
        DataError: saying how many windows there are and how many it takes.
    """
    if len(dataset.train) < batch_size:
        raise too_few(len(dataset.train), batch_size)


def _segments(schema: DataSchema, every: list[Series], *, held_out: bool) -> dict[str, tuple[Segment, ...]]:
    lengths = {series.id: len(series.values) for series in every}
    if held_out:
        return {name: (Segment("test", 0, rows),) for name, rows in lengths.items()}
    return split(
        lengths,
        window=schema.window,
        validation_fraction=schema.validation_fraction,
        test_fraction=schema.test_fraction,
    )


def _joined(arrays: list[NDArray[Float]], width: int, dtype: type[Float]) -> NDArray[Float]:
    return arrays[0] if len(arrays) == 1 else np.concatenate([np.empty((0, width), dtype), *arrays])


def _windows(schema: DataSchema, rows: Floats, targets: NDArray[np.float32], cuts: list[tuple[int, Cut]]) -> Windows:
    starts = np.concatenate([np.empty(0, np.int64), *(found.starts + offset for offset, found in cuts)])
    return Windows(rows, targets, starts, schema.window, origins(schema))


def _report(
    schema: DataSchema,
    reading: Reading,
    segments: dict[str, tuple[Segment, ...]],
    parts: dict[Part, Windows],
    cuts: dict[Part, list[tuple[int, Cut]]],
) -> DataReport:
    rows = parts["train"].rows
    placed = [segment for several in segments.values() for segment in several]
    sizes = {part: [segment.stop - segment.start for segment in placed if segment.part == part] for part in PARTS}
    dropped_rows = Counter(reading.dropped_rows)
    dropped_rows[SHORT_SERIES] += sum(size for every in sizes.values() for size in every if size < schema.window)
    dropped_rows[GAP] += len(rows) - sum(map(sum, sizes.values()))
    dropped_windows: Counter[str] = Counter()
    for every in cuts.values():
        for _, found in every:
            dropped_windows.update(found.dropped)
    return DataReport(
        num_files=len(reading.files),
        files=reading.files[:MAX_LISTED_FILES],
        rows=len(rows),
        series=len(reading.series),
        missing_cells=sum(file.missing_cells for file in reading.files),
        bad_cells=sum(file.bad_cells for file in reading.files),
        parts={part: PartReport(len(sizes[part]), sum(sizes[part]), len(parts[part])) for part in PARTS},
        dropped_rows=dict(+dropped_rows),
        dropped_windows=dict(dropped_windows),
        targets=describe_targets(schema, list(parts.values())),
        features=describe_features(schema, rows),
    )


def _no_windows(schema: DataSchema, report: DataReport) -> DataError:
    drops = describe_drops({**report.dropped_rows, **report.dropped_windows})
    return DataError(
        f"{report.rows} rows in {report.series} series give no window of {schema.window} rows"
        + (f" ({drops})" if drops else ""),
        "a window needs that many rows of one series without a missing value; check data.files and data.series",
    )
