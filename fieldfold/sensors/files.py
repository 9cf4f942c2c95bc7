"""The source for files: globs -> readers -> series."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np

from fieldfold.errors import DataError
from fieldfold.sensors import delimited, npz
from fieldfold.sensors.columns import Block, Selection, Wanted, select
from fieldfold.sensors.gather import Gathering
from fieldfold.sensors.schema import DataSchema
from fieldfold.sensors.source import MAX_FILES, DataConfig, FileReport, Floats, Reading

DAMAGED_LINE = "wrong number of cells in the line"
OTHER_SERIES = "series of other gateways"
Fingerprint: TypeAlias = tuple[tuple[str, int, int], ...]


def read(schema: DataSchema, config: DataConfig, base: Path) -> Reading:
    """Reads every file that `config` names, relative to the folder `base`.

    Raises:
        DataError: naming the file, and what is wrong with it.
        ConfigError: for column settings that do not suit the task.
    """
    selection = select(schema, config)
    gathering = Gathering(config, selection)
    reports: list[FileReport] = []
    damaged_lines = 0
    for name, path in find(config.files, base).items():
        rows = missing_cells = bad_cells = 0
        for block in _blocks(path, selection, config):
            kept = gathering.add(block, str(path), name)
            rows += len(kept)
            missing_cells += int(np.isnan(kept).sum())
            bad_cells += block.bad_cells
            damaged_lines += block.damaged_lines
        reports.append(FileReport(name, rows, missing_cells, bad_cells))
    ends = _ends(base / config.ends, len(gathering.names())) if config.ends else None
    dropped = {DAMAGED_LINE: damaged_lines, OTHER_SERIES: gathering.other_rows}
    return Reading(
        gathering.take(ends), tuple(reports), {reason: count for reason, count in dropped.items() if count}
    )


def find(patterns: Sequence[str], base: Path) -> dict[str, Path]:
    """The files that the globs match, each once, in the order of their names.

    A file's name is its path relative to `base` (for an absolute pattern the path itself), less `.gz`: it stays
    the same when a log is compressed or the whole folder moves.

    Raises:
        DataError: when a pattern matches nothing, two files have one name, or there are more than MAX_FILES.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for pattern in patterns:
        matches = _matches(pattern, base)
        if not matches:
            raise DataError(
                f"data.files: {pattern} matches no file in {base}",
                "paths are relative to the folder of the configuration file; check the name and the permissions",
            )
        for path in matches:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            whole = os.path.normpath(path) if Path(pattern).is_absolute() else os.path.relpath(path, base)
            name = Path(whole).as_posix().removesuffix(".gz")
            if name in found:
                raise DataError(
                    f"data.files: {found[name]} and {path} are the same series twice", "remove one of them"
                )
            found[name] = path
        if len(found) > MAX_FILES:
            raise DataError(f"data.files: match more than {MAX_FILES} files", "name fewer files")
    return dict(sorted(found.items()))


def fingerprint(config: DataConfig, base: Path) -> Fingerprint:
    """Name, size and time of change of every file that `config` names: equal while nobody has touched any.

    Raises:
        DataError: as `find`, and when a file cannot be looked at.
    """
    paths = [*find(config.files, base).values(), *([base / config.ends] if config.ends else [])]
    try:
        return tuple((str(path), (found := path.stat()).st_size, found.st_mtime_ns) for path in paths)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}", "check the file") from None


def _matches(pattern: str, base: Path) -> list[Path]:
    anchor = Path(pattern).anchor
    root, rest = (Path(anchor), pattern[len(anchor) :]) if anchor else (base, pattern)
    try:
        return sorted(path for path in root.glob(rest) if path.is_file())
    except (ValueError, IndexError, NotImplementedError):
        raise DataError(f"data.files: {pattern!r} is no pattern for files", "e.g. data/*.csv.gz") from None


def _blocks(path: Path, selection: Selection, config: DataConfig) -> Iterator[Block]:
    if config.format == "npz" or (config.format == "auto" and _is_zip(path)):
        return npz.read(path, selection)
    return delimited.read(path, selection, config)


def _is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(npz.ZIP_MAGIC)) == npz.ZIP_MAGIC
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}", "check the file and its permissions") from None


def _ends(path: Path, num_series: int) -> Floats:
    """Remaining life at the end of each series, float64 `(num_series,)`."""
    selection = Selection(values=(Wanted("data.ends", 1),), num_features=1)
    config = DataConfig(files=(str(path),), header=False)
    blocks = [block.numbers[:, 0] for block in delimited.read(path, selection, config)]
    ends = np.concatenate(blocks) if blocks else np.empty(0)
    if len(ends) != num_series:
        raise DataError(
            f"{path}: {len(ends)} numbers for {num_series} series", "data.ends needs one number for each series"
        )
    if not (np.isfinite(ends) & (ends >= 0)).all():
        raise DataError(f"{path}: a remaining life is missing or below zero", "correct that line")
    return ends
