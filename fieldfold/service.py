"""What a service manager expects of a program: word when it is up, a sign of life, and an end when it is asked."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping

import psutil

END_WITHIN_S = 4.5
"""What takes longer (a long step of a model, a TLS handshake) is cut off: all that matters is on the disk by then."""


class Notifier:
    """Tells systemd how the program does, by sd_notify(3); says nothing where nobody listens.

    Args:
        environment: NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID are read.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = f"\0{self._address[1:]}"
        usec, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        ours = usec.isdecimal() and pid in {"", str(os.getpid())}
        self._every_s = int(usec) / 1e6 / 4 if ours else 0.0
        self._fed_at = -self._every_s

    def ready(self) -> None:
        """The program is up."""
        self._say("READY=1")

    def stopping(self) -> None:
        """The program ends."""
        self._say("STOPPING=1")

    def alive(self) -> None:
        """Feeds the watchdog, four times in its period however often this is called."""
        now = time.monotonic()
        if self._every_s and now - self._fed_at >= self._every_s:
            self._fed_at = now
            self._say("WATCHDOG=1")

    def _say(self, word: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
            out.settimeout(0.1)
            out.sendto(word.encode(), self._address)


def end_on_signals(stop: Callable[[], None]) -> None:
    """Has SIGTERM and SIGINT call `stop`; what has not ended END_WITHIN_S later is ended, with exit code 0."""

    def asked(*_: object) -> None:
        timer = threading.Timer(END_WITHIN_S, leave)
        timer.daemon = True
        timer.start()
        stop()

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, asked)


def leave() -> None:
    """Ends the process and its children at once, without waiting for any thread."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    logging.shutdown()
    os._exit(0)
