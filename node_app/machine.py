"""What the daemon costs the box it runs on."""

from __future__ import annotations

import psutil


class Machine:
    """This process, and the sensors around it."""

    def __init__(self) -> None:
        self._process = psutil.Process()

    @property
    def memory_bytes(self) -> int:
        """Resident memory of this process."""
        return int(self._process.memory_info().rss)

    @property
    def cpu_s(self) -> float:
        """Processor seconds of all threads since the start; whoever looks twice knows the load between."""
        times = self._process.cpu_times()
        return float(times.user + times.system)

    @property
    def temperature_c(self) -> float | None:
        """The hottest sensor of the box; None where it shows none."""
        readings = psutil.sensors_temperatures() if hasattr(psutil, "sensors_temperatures") else {}
        return max((float(each.current) for group in readings.values() for each in group), default=None)
