"""The daemon's side of the control socket."""

from __future__ import annotations

import contextlib
import math
import os
import pwd
import socket
import socketserver
import stat
import struct
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from fieldfold.control.lines import Lines
from fieldfold.control.protocol import MAX_LINE_BYTES, Answer, Request, Rights, check_socket_path
from fieldfold.errors import ControlError, FieldfoldError

Calls: TypeAlias = Mapping[str, Callable[..., Any]]
Commands: TypeAlias = Calls
READ_ONLY = "this connection is read-only"
ANOTHER_USER = "this user may look but not command"
_PEER_CREDENTIALS = struct.Struct("3i")
_FASTEST_WATCH_S = 0.1
FRESH_S = 0.05
"""A status is made so often at most, however many ask: the daemon has better things to do."""
BATCH_BYTES = 1 << 16
_NOTICES_STOP_S = 0.1


class ControlServer:
    """Serves a status and a table of commands until `stop`.

    Anyone who may open the socket may read status and views; only root and the daemon's own user may command, and
    nobody over a connection that was attached read-only.

    Args:
        path: where the socket is to be; a stale one is replaced, one that answers is an error.
        status: gives a frozen, JSON-able snapshot; called from the server's threads.
        commands: name -> function of whoever asks and the command's arguments; raises FieldfoldError to refuse.
        views: name -> function of the view's arguments, which changes nothing; called as `status` is.

    Raises:
        ControlError: when another daemon answers at `path`, or the socket cannot be made.
    """

    def __init__(self, path: Path, status: Callable[[], Any], commands: Commands, views: Calls | None = None) -> None:
        self.path = check_socket_path(path)
        _claim(path)
        self._closing = threading.Event()
        mask = os.umask(0o117)
        try:
            self._server = _Server(str(path), _Session)
        except OSError as error:
            raise ControlError(f"{path}: cannot listen there: {error.strerror}", "set control_socket") from None
        finally:
            os.umask(mask)
        self._server.status = _Status(status)
        self._server.commands, self._server.closing = commands, self._closing
        self._server.views = views or {}
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_NOTICES_STOP_S,), name="control", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Ends all sessions and removes the socket."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.path.unlink(missing_ok=True)


class _Status:
    """Makes the status, and remembers it for a moment as what is sent. Thread-safe.

    Args:
        make: gives it; called by one thread at a time.
    """

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._line, self._made_at = b"", -math.inf
        self._number = 0

    def newest(self) -> tuple[int, bytes]:
        """The answer as a line, and its number."""
        with self._lock:
            if time.monotonic() - self._made_at >= FRESH_S:
                self._line, self._made_at = _line(Answer(ok=True, result=self._make())), time.monotonic()
                self._number += 1
            return self._number, self._line

    def newer_in_s(self, number: int) -> float:
        """How long whoever has the status of that number waits for another."""
        with self._lock:
            return self._made_at + FRESH_S - time.monotonic() if number == self._number else 0.0

    def forget(self) -> None:
        """Something was asked for, and may have changed it."""
        with self._lock:
            self._made_at = -math.inf


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a Unix socket refuses whoever finds the queue full; Python's default holds 5
    status: _Status
    commands: Commands
    views: Calls
    closing: threading.Event


class _Session(socketserver.BaseRequestHandler):
    server: _Server
    read_only = False
    has_status = 0
    """Number of the newest one that was sent."""

    def handle(self) -> None:
        """Answers requests until the client goes."""
        lines = Lines(self.request, MAX_LINE_BYTES)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not self.server.closing.is_set() and (line := lines.next()):
                try:
                    request = msgspec.json.decode(line, type=Request)
                    if request.ask == "status":
                        self._send_status(line, lines)
                    else:
                        self._serve(request)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self._send(Answer(ok=False, reason=f"not a request: {error}"))
                except FieldfoldError as error:
                    self._send(Answer(ok=False, reason=error.reason, hint=error.hint))

    def _send_status(self, line: bytes, lines: Lines) -> None:
        """Whoever has the newest waits for a newer; what he has asked for until then is answered together."""
        if (wait_s := self.server.status.newer_in_s(self.has_status)) > 0:
            self.server.closing.wait(wait_s)
        left = 1 + lines.repeats(line)
        self.has_status, answer = self.server.status.newest()
        while left:
            together = min(left, 1 + BATCH_BYTES // len(answer))
            self.request.sendall(answer * together)
            left -= together

    def _serve(self, request: Request) -> None:
        if request.ask == "watch":
            while not self.server.closing.is_set():
                self.request.sendall(self.server.status.newest()[1])
                self.server.closing.wait(max(request.every_s, _FASTEST_WATCH_S))
        elif request.ask == "attach":
            self.read_only = self.read_only or request.read_only
            self._send(Answer(ok=True, result=self._rights()))
        else:
            self._send(Answer(ok=True, result=self._call(request)))

    def _rights(self) -> Rights:
        why_not = self._why_not()
        return Rights(not why_not, why_not, tuple(self.server.views), tuple(self.server.commands))

    def _why_not(self) -> str:
        """Why a command is refused here; empty where it is not."""
        if self.read_only:
            return READ_ONLY
        return "" if self._peer_uid() in (0, os.geteuid()) else ANOTHER_USER

    def _call(self, request: Request) -> Any:
        kind = request.ask
        name, known = (request.view, self.server.views) if kind == "view" else (request.command, self.server.commands)
        if name not in known:
            raise ControlError(f"there is no {kind} {name!r}", f"known here: {', '.join(known)}")
        if kind == "command" and (why_not := self._why_not()):
            hint = "attach without read-only" if self.read_only else "run it as the daemon's user or as root"
            raise ControlError(why_not, hint)
        asks = (user_name(self._peer_uid()),) if kind == "command" else ()
        try:
            return known[name](*asks, **request.arguments)
        except TypeError as error:
            raise ControlError(f"{name}: {error}") from None
        finally:
            if kind == "command":
                self.server.status.forget()

    def _peer_uid(self) -> int:
        """The user at the other end, as the kernel knows him."""
        raw = self.request.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        return int(_PEER_CREDENTIALS.unpack(raw)[1])

    def _send(self, answer: Answer) -> None:
        self.request.sendall(_line(answer))


def _line(answer: Answer) -> bytes:
    return msgspec.json.encode(answer) + b"\n"


def user_name(uid: int) -> str:
    """A user's name, or his number where he has none here."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _claim(path: Path) -> None:
    """Makes the folder, and clears a socket that nobody answers any more."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    except OSError as error:
        raise ControlError(f"{path.parent}: cannot be made: {error.strerror}", "set control_socket") from None
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise ControlError(f"{path}: there is a file that is no socket", "set control_socket to another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except PermissionError:
            raise ControlError(f"{path}: belongs to another user's daemon", "set control_socket") from None
        except OSError:
            pass  # it listens, and is too busy to answer
    raise ControlError(f"{path}: another daemon answers there", "stop it first, or set control_socket")
