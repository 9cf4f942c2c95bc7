"""What may be asked of a running aggregator over its control socket."""

from __future__ import annotations

import base64
import concurrent.futures
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from aggregator.federation import Federation
from aggregator.ledger.backup import Backup, BackupView
from aggregator.ledger.ledger import Ledger
from aggregator.status import Tally
from fieldfold.control.server import Commands
from fieldfold.errors import BundleError, ControlError, FieldfoldError
from fieldfold.task.bundle import Bundle

COMMAND_TIMEOUT_S = 60.0


class Asked(msgspec.Struct, frozen=True):
    """Something to be run by the service's thread, which owns ledger and model."""

    run: Callable[[], Any]
    answer: concurrent.futures.Future[Any]

    def do(self) -> None:
        """Runs it; a refusal goes to whoever asked."""
        try:
            self.answer.set_result(self.run())
        except FieldfoldError as error:
            self.answer.set_exception(error)


class Desk:
    """Runs commands; its methods are called from the control socket's threads.

    Args:
        pass_on: hands something to the service's thread.
    """

    def __init__(
        self, ledger: Ledger, federation: Federation, tally: Tally, pass_on: Callable[[Asked], None]
    ) -> None:
        self._ledger, self._federation, self._tally, self._pass_on = ledger, federation, tally, pass_on
        self._backup: Backup | None = None

    @property
    def commands(self) -> Commands:
        """Name -> what runs it."""
        return {"publish_task": self.publish_task, "backup": self.back_up}

    @property
    def backup(self) -> BackupView | None:
        """How far the newest backup is."""
        return self._backup.view if self._backup else None

    def publish_task(self, bundle: str) -> dict[str, Any]:
        """Makes a task the present one; `bundle` is the file in base64.

        Raises:
            FieldfoldError: when it is none, or cannot be written down.
        """
        try:
            data = base64.b64decode(bundle, validate=True)
        except ValueError:
            raise BundleError("the bundle did not arrive as base64") from None
        parsed = Bundle.from_bytes(data)
        self.ask(lambda: self._federation.set_task(parsed))
        model = self._federation.model
        if model is not None:
            word = f"goes on at version {model.version}"
        elif parsed.manifest.data.normalisation == "none":
            word = "begins now"
        else:
            word = "begins when the gateways have sent their statistics"
        return {"task": parsed.manifest.name, "digest": parsed.digest, "model": word, "online": self._tally.online}

    def back_up(self, path: str) -> None:
        """Begins a backup of the ledger to a file that is not there yet; the status says how far it is.

        Raises:
            FieldfoldError: when it cannot begin.
        """
        if self._backup is not None and self._backup.view.state == "running":
            raise ControlError(f"the backup to {self._backup.view.path} is still being made", "wait for it")
        self._backup = Backup(self._ledger, Path(path))

    def ask(self, run: Callable[[], Any]) -> Any:
        """Runs something in the service's thread and waits for it.

        Raises:
            FieldfoldError: what it raised.
            ControlError: when its turn did not come in time.
        """
        answer: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._pass_on(Asked(run, answer))
        try:
            return answer.result(timeout=COMMAND_TIMEOUT_S)
        except TimeoutError:
            raise ControlError("the aggregator is busy", "try again") from None

    def stop(self) -> None:
        """Ends what is under way: a backup that is not whole is taken away."""
        if self._backup is not None:
            self._backup.stop()
