"""`fieldfold` with a wall clock that jumps: the seconds to be added stand in the file that CLOCK names."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fieldfold.cli.main import main

CLOCK = "FIELDFOLD_CHAOS_CLOCK"
_real = time.time


def _shifted() -> float:
    try:
        return _real() + float(Path(os.environ[CLOCK]).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return _real()


if __name__ == "__main__":
    time.time = _shifted
    main()
