"""The client's side of the control socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import msgspec

from fieldfold.control.protocol import Answer, Request, Rights
from fieldfold.errors import ControlError


class ControlClient:
    """One connection to a daemon; use as a context manager.

    Raises:
        ControlError: when no daemon answers at `path`.
    """

    def __init__(self, path: Path, timeout_s: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            _connect(self._socket, path, timeout_s)
        except PermissionError:
            self._socket.close()
            raise ControlError(f"{path}: not permitted", "ask as the daemon's user or as root") from None
        except OSError:
            self._socket.close()
            raise ControlError(
                f"{path}: no daemon answers there", "start it, or give --socket if it listens elsewhere"
            ) from None
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hangs up."""
        self._lines.close()
        self._socket.close()

    def status(self) -> Any:
        """The daemon's status as plain JSON values."""
        return self._ask(Request(ask="status"))

    def watch(self, every_s: float = 1.0) -> Iterator[Any]:
        """The status, again every `every_s` seconds, until the daemon ends."""
        self._send(Request(ask="watch", every_s=every_s))
        while line := self._receive():
            yield _result(line)

    def attach(self, *, read_only: bool = False) -> Rights:
        """What this connection may do; `read_only` gives up commands on it for good."""
        return msgspec.convert(self._ask(Request(ask="attach", read_only=read_only)), Rights)

    def view(self, name: str, **arguments: Any) -> Any:
        """What the daemon shows under `name`, as plain JSON values.

        Raises:
            ControlError: with the daemon's reason when there is no such view.
        """
        return self._ask(Request(ask="view", view=name, arguments=arguments))

    def command(self, name: str, **arguments: Any) -> Any:
        """Runs a command in the daemon.

        Raises:
            ControlError: with the daemon's reason when it refuses.
        """
        return self._ask(Request(ask="command", command=name, arguments=arguments))

    def _send(self, request: Request) -> None:
        try:
            self._socket.sendall(msgspec.json.encode(request) + b"\n")
        except OSError as error:
            raise _hung_up(error) from None

    def _receive(self) -> bytes:
        """The next line; empty when the daemon has ended."""
        try:
            return self._lines.readline()
        except OSError as error:
            raise _hung_up(error) from None

    def _ask(self, request: Request) -> Any:
        self._send(request)
        if not (line := self._receive()):
            raise ControlError("the daemon hung up", "look into its log")
        return _result(line)


def _connect(unconnected: socket.socket, path: Path, timeout_s: float) -> None:
    """Connects; a Unix socket does not wait by itself where the daemon's queue is full."""
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        with contextlib.suppress(BlockingIOError):
            unconnected.connect(str(path))
            return
        time.sleep(0.01)
    raise TimeoutError


def _hung_up(error: OSError) -> ControlError:
    return ControlError(f"the daemon does not answer: {error}", "look into its log")


def _result(line: bytes) -> Any:
    try:
        answer = msgspec.json.decode(line, type=Answer)
    except msgspec.DecodeError as error:
        raise ControlError(f"the daemon's answer cannot be read: {error}", "is it of another version?") from None
    if not answer.ok:
        raise ControlError(answer.reason, answer.hint)
    return answer.result
