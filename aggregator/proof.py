"""`verify` beside the work: a copy of the ledger, folded again by a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import threading

import msgspec

from aggregator.ledger.backup import Backup
from aggregator.ledger.ledger import Ledger
from aggregator.records import ProofView
from fieldfold.cli.figures import size
from fieldfold.errors import FieldfoldError, StoreError

ROOM_TIMES = 2.0
NICE = 10
"""Taking updates goes before proving old ones."""
_PROGRESS = re.compile(r"([\d,]+) of ([\d,]+) contributions")


class Proof:
    """One verification, in a thread that waits for a copy and then for a process.

    Raises:
        StoreError: when it cannot begin.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._copy = ledger.path.resolve().with_name(f"{ledger.path.name}.proof")
        self._copy.unlink(missing_ok=True)
        _require_room(ledger)
        self.view = ProofView("running")
        self._process: subprocess.Popen[str] | None = None
        self._stopping = False
        self._backup = Backup(ledger, self._copy)
        self._thread = threading.Thread(target=self._run, name="proof", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until there is a word."""
        self._thread.join()

    def stop(self) -> None:
        """Gives up, unless there is a word already."""
        self._stopping = True
        self._backup.stop()
        if self._process is not None:
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._backup.wait()
            if self._backup.view.state == "failed":
                self.view = ProofView("failed", said=self._backup.view.trouble)
            elif not self._stopping:
                self._verify()
        except (OSError, FieldfoldError) as error:
            self.view = ProofView("failed", said=str(error))
        finally:
            with contextlib.suppress(OSError):
                self._copy.unlink(missing_ok=True)

    def _verify(self) -> None:
        program = "from fieldfold.cli.main import main; main()"
        command = [sys.executable, "-c", program, "aggregator", "verify", "--ledger", str(self._copy), "--progress"]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            preexec_fn=lambda: os.nice(NICE),  # noqa: PLW1509 - only lowers the priority
        ) as self._process:
            last = ""
            for line in self._process.stderr or ():
                last = line.strip()
                if found := _PROGRESS.search(line):
                    done, total = (int(each.replace(",", "")) for each in found.groups())
                    self.view = msgspec.structs.replace(self.view, done=done, total=total)
            said = (self._process.stdout.read() if self._process.stdout else "").strip()
        code = self._process.returncode
        if code in (0, 1) and said:
            self.view = msgspec.structs.replace(self.view, state="different" if code else "done", said=said)
        else:
            self.view = ProofView("failed", said=last or f"the verification ended with {code}")


def _require_room(ledger: Ledger) -> None:
    """A copy must not take the room that the ledger itself needs."""
    needed, free = ROOM_TIMES * ledger.path.stat().st_size, shutil.disk_usage(ledger.path.parent).free
    if free < needed:
        raise StoreError(
            f"{ledger.path.parent}: {size(free)} are free, a copy of the ledger to verify needs {size(int(needed))}",
            "verify a backup on another machine",
        )
