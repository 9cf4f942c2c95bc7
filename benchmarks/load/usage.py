"""What a process uses, from /proc: processor time by thread to the nanosecond, and resident memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import psutil

KIB = 1024


def cpu_s(pid: int) -> float:
    """Processor time of all threads that a process has now, user and system."""
    return sum(cpu_by_thread_s(pid).values())


def cpu_by_thread_s(pid: int) -> dict[str, float]:
    """The same by the thread's name; threads of one name are added."""
    found: dict[str, float] = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name = (thread / "comm").read_text(encoding="ascii").strip()
            spent_ns = int((thread / "schedstat").read_text(encoding="ascii").split()[0])
            found[name] = found.get(name, 0.0) + spent_ns / 1e9
    return found


def tree_cpu_s(pids: Iterable[int]) -> float:
    """Processor time of processes and all that descends from them, with what has ended and was waited for."""
    spent = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = each.cpu_times()
                    spent += times.user + times.system + times.children_user + times.children_system
    return spent


def rss_bytes(pid: int) -> int:
    """Resident memory now."""
    return _field(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The most it was since the process began."""
    return _field(pid, "VmHWM")


def _field(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(line for line in text.splitlines() if line.startswith(name))
    return int(line.split()[1]) * KIB


def median(values: Iterable[float]) -> float:
    """The middle one, the upper of two."""
    ordered = sorted(values)
    return ordered[len(ordered) // 2]
