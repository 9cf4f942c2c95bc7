"""What may be asked of a running aggregator over its control socket; the first argument of each is who asks."""

from __future__ import annotations

import base64
import concurrent.futures
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from aggregator.federation import Federation
from aggregator.ledger.backup import Backup
from aggregator.ledger.ledger import Ledger
from aggregator.proof import Proof
from aggregator.reception import Reception
from aggregator.records import BackupView, ProofView
from aggregator.status import Tally
from fieldfold.control.server import Commands
from fieldfold.errors import BundleError, ControlError, FieldfoldError
from fieldfold.task.bundle import Bundle
from fieldfold.wire.messages import MAX_COUNTER
from fieldfold.wire.topics import check_node_name

log = logging.getLogger(__name__)
COMMAND_TIMEOUT_S = 60.0
Order: TypeAlias = Literal["pause", "resume"]
"""What a node can be asked."""
Version = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNTER)]


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
        tell_node: sends a command to a node, and who asks.
        pass_on: hands something to the service's thread.
    """

    def __init__(  # noqa: PLR0913 - what commands work on
        self,
        ledger: Ledger,
        federation: Federation,
        reception: Reception,
        tally: Tally,
        *,
        tell_node: Callable[[str, Order, str], None],
        pass_on: Callable[[Asked], None],
    ) -> None:
        self._ledger, self._federation, self._reception, self._tally = ledger, federation, reception, tally
        self._tell_node, self._pass_on = tell_node, pass_on
        self._backup: Backup | None = None
        self._proof: Proof | None = None

    @property
    def commands(self) -> Commands:
        """Name -> what runs it."""
        return {
            "publish_task": self.publish_task,
            "pause": self.pause,
            "resume": self.resume,
            "release": self.release,
            "roll_back": self.roll_back,
            "exclude": self.exclude,
            "readmit": self.readmit,
            "revoke": self.revoke,
            "backup": self.back_up,
            "verify": self.verify,
        }

    # -- the model ---------------------------------------------------------------------------------------------------

    def publish_task(self, asks: str, bundle: str) -> dict[str, Any]:
        """Makes a task the present one; `bundle` is the file in base64.

        Raises:
            FieldfoldError: when it is none, or cannot be written down.
        """
        try:
            data = base64.b64decode(bundle, validate=True)
        except ValueError:
            raise BundleError("the bundle did not arrive as base64") from None
        parsed = Bundle.from_bytes(data)
        self.ask(lambda: self._federation.set_task(parsed, asks))
        model = self._federation.model
        if model is not None:
            word = f"goes on at version {model.version}"
        elif parsed.manifest.data.normalisation == "none":
            word = "begins now"
        else:
            word = "begins when the gateways have sent their statistics"
        return {"task": parsed.manifest.name, "digest": parsed.digest, "model": word, "online": self._tally.online}

    def pause(self, asks: str, node: str = "") -> str:
        """Holds the model where it is while updates are taken and wait; or has one node hold its training.

        Raises:
            FieldfoldError: when there is no model, or no such node; so below.
        """
        return self._tell(asks, node, "pause") if node else self._ask_federation(self._federation.hold, asks)

    def resume(self, asks: str, node: str = "") -> str:
        """Goes on; or has one node go on."""
        return self._tell(asks, node, "resume") if node else self._ask_federation(self._federation.let_go, asks)

    def release(self, asks: str) -> str:
        """While the model is held: folds what waits, once."""
        return self._ask_federation(self._federation.release, asks)

    def roll_back(self, asks: str, version: int) -> str:
        """Releases an older version's parameters as the next version; nothing counts that was learned in between."""
        try:
            number = msgspec.convert(version, Version)
        except msgspec.ValidationError as error:
            raise ControlError(f"version: {error}") from None
        return self._ask_federation(self._federation.turn_back, asks, number)

    def _ask_federation(self, do: Callable[..., str], asks: str, *values: object) -> str:
        said: str = self.ask(lambda: do(asks, *values))
        log.warning("%s asks: %s", asks, said)
        return said

    # -- nodes -------------------------------------------------------------------------------------------------------

    def exclude(self, asks: str, node: str) -> str:
        """Takes none of a node's updates from now on; what was folded stays (see `refold`)."""
        return self._set_excluded(asks, node, excluded=True)

    def readmit(self, asks: str, node: str) -> str:
        """Takes a node's updates again."""
        return self._set_excluded(asks, node, excluded=False)

    def revoke(self, asks: str, node: str) -> str:
        """Notes that a node was revoked at the broker, and refuses what it sent before and comes later."""
        name = check_node_name(str(node)[:80])
        said = f"{name} was revoked at the broker: nothing of it is taken any more"
        self.ask(lambda: self._write_down(asks, "revoke", name, said, excluded=True))
        log.warning("%s asks: %s", asks, said)
        return said

    def _write_down(self, asks: str, command: str, node: str, said: str, *, excluded: bool) -> None:
        with self._ledger.transaction():
            if excluded:
                self._ledger.exclude(node, asks)
            else:
                self._ledger.readmit(node)
            self._ledger.put_operation(asks, command, node, said)
        self._reception.excluded = self._ledger.excluded()

    def _set_excluded(self, asks: str, node: str, *, excluded: bool) -> str:
        self._require_known(node)
        if (node in self._reception.excluded) is excluded:
            return f"{node} is {'excluded already' if excluded else 'not excluded'}"
        said = f"nothing of {node} is taken any more" if excluded else f"{node} counts again"

        command = "exclude" if excluded else "readmit"
        self.ask(lambda: self._write_down(asks, command, node, said, excluded=excluded))
        log.warning("%s asks: %s", asks, said)
        return said

    def _tell(self, asks: str, node: str, what: Order) -> str:
        """Asks a node over the broker; one that is away hears it when it is back, if the broker keeps its session."""
        self._require_known(node)
        said = f"{node} was asked to {what}"

        def work() -> None:
            with self._ledger.transaction():
                self._ledger.put_operation(asks, f"{what} node", node, said)
            self._tell_node(node, what, asks)

        self.ask(work)
        log.info("%s asks: %s", asks, said)
        return said

    def _require_known(self, node: str) -> None:
        if node not in self._tally.nodes:
            raise ControlError(f"{str(node)[:80]}: no such node was ever heard", "see `fieldfold aggregator status`")

    # -- the ledger --------------------------------------------------------------------------------------------------

    @property
    def backup(self) -> BackupView | None:
        """How far the newest backup is."""
        return self._backup.view if self._backup else None

    @property
    def proof(self) -> ProofView | None:
        """How far the newest verification is."""
        return self._proof.view if self._proof else None

    def back_up(self, asks: str, path: str) -> None:
        """Begins a backup of the ledger to a file that is not there yet; the status says how far it is.

        Raises:
            FieldfoldError: when it cannot begin.
        """
        if self._backup is not None and self._backup.view.state == "running":
            raise ControlError(f"the backup to {self._backup.view.path} is still being made", "wait for it")
        self._backup = Backup(self._ledger, Path(path))
        log.info("%s asks for a backup to %s", asks, path)

    def verify(self, asks: str) -> str:
        """Begins to fold the whole log again, out of a copy and beside the work; the status says how far it is."""
        if self._proof is not None and self._proof.view.state == "running":
            raise ControlError("the ledger is being verified already", "wait for it")
        self._proof = Proof(self._ledger)
        log.info("%s asks to verify the ledger", asks)
        return "verifying a copy of the ledger"

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
        """Ends what is under way: a copy that is not whole is taken away."""
        if self._backup is not None:
            self._backup.stop()
        if self._proof is not None:
            self._proof.stop()
