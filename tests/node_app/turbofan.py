"""The turbofan task as its users have it: built once by the real command and kept, and a gateway's data for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from fieldfold.sensors.source import Column, DataConfig
from fieldfold.task.bundle import Bundle

ROOT = Path(__file__).resolve().parents[2]
TASK_FILE = ROOT / "examples" / "turbofan" / "task.py"
DATA = ROOT / "examples" / "turbofan" / "data"
COLUMNS: dict[str, Column] = {f"s{n}": n + 5 for n in (2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15, 17, 20, 21)}
BUILD_TIMEOUT_S = 100.0


@cache
def bundle_file() -> Path:
    """The compiled bundle; built anew when the task file or the compiler has changed."""
    path = ROOT / ".cache" / f"turbofan-{_fingerprint()}.bundle"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        mine = path.with_suffix(f".{os.getpid()}")
        command = [sys.executable, "-m", "fieldfold", "task", "build", str(TASK_FILE), "-o", str(mine)]
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_TIMEOUT_S)
        mine.replace(path)
    return path


@cache
def turbofan() -> Bundle:
    return Bundle.read(bundle_file())


def data_of(*engines: int) -> DataConfig:
    """What a gateway with these engines has in its `[data]` table."""
    return DataConfig(
        files=(str(DATA / "train_FD001.txt.gz"),), series=1, columns=COLUMNS, include_series=tuple(engines)
    )


def data_table(*engines: int, **changes: str) -> str:
    """The same as text; `changes` replace a key's text or add one."""
    listed = ", ".join(f"{name} = {column}" for name, column in COLUMNS.items())
    keys = {
        "files": f'["{DATA}/train_FD001.txt.gz"]',
        "series": "1",
        "columns": f"{{ {listed} }}",
        "include_series": f"{list(engines)}",
    }
    return "\n".join(["[data]", *(f"{key} = {text}" for key, text in {**keys, **changes}.items())]) + "\n"


def _fingerprint() -> str:
    found = hashlib.sha256()
    for path in (TASK_FILE, *sorted((ROOT / "fieldfold" / "task").rglob("*.py"))):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]
