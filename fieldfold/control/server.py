"""The daemon's side of the control socket."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import stat
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from fieldfold.control.protocol import MAX_LINE_BYTES, Answer, Request, Rights, check_socket_path
from fieldfold.errors import ControlError, FieldfoldError

Calls: TypeAlias = Mapping[str, Callable[..., Any]]
Commands: TypeAlias = Calls
READ_ONLY = "this connection is read-only"
ANOTHER_USER = "this user may look but not command"
_PEER_CREDENTIALS = struct.Struct("3i")
_FASTEST_WATCH_S = 0.1
_NOTICES_STOP_S = 0.1


class ControlServer:
    """Serves a status and a table of commands until `stop`.

    Anyone who may open the socket may read status and views; only root and the daemon's own user may command, and
    nobody over a connection that was attached read-only.

    Args:
        path: where the socket is to be; a stale one is replaced, one that answers is an error.
        status: gives a frozen, JSON-able snapshot; called from the server's threads.
        commands: name -> function of the command's arguments; raises FieldfoldError to refuse.
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
        self._server.status, self._server.commands, self._server.closing = status, commands, self._closing
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


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # a Unix socket refuses whoever finds the queue full; Python's default holds 5
    status: Callable[[], Any]
    commands: Commands
    views: Calls
    closing: threading.Event


class _Session(socketserver.StreamRequestHandler):
    server: _Server
    read_only = False

    def handle(self) -> None:
        """Answers requests until the client goes."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while not self.server.closing.is_set() and (line := self.rfile.readline(MAX_LINE_BYTES)):
                try:
                    self._serve(msgspec.json.decode(line, type=Request))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    self._send(Answer(ok=False, reason=f"not a request: {error}"))
                except FieldfoldError as error:
                    self._send(Answer(ok=False, reason=error.reason, hint=error.hint))

    def _serve(self, request: Request) -> None:
        if request.ask == "status":
            self._send(Answer(ok=True, result=self.server.status()))
        elif request.ask == "watch":
            while not self.server.closing.is_set():
                self._send(Answer(ok=True, result=self.server.status()))
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
        try:
            return known[name](**request.arguments)
        except TypeError as error:
            raise ControlError(f"{name}: {error}") from None

    def _peer_uid(self) -> int:
        """The user at the other end, as the kernel knows him."""
        raw = self.connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
        return int(_PEER_CREDENTIALS.unpack(raw)[1])

    def _send(self, answer: Answer) -> None:
        self.wfile.write(msgspec.json.encode(answer) + b"\n")


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
