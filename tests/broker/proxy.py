"""A bad link: a TCP proxy whose connections can be cut in the middle of a packet."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from typing import Self


class BadLink:
    """Forwards from `port` on loopback to `target_port`; use as a context manager."""

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self._target_port = target_port
        self._rng = random.Random(seed)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._open = True
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Ends every connection at once, whatever is on its way."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self.cuts += len(pairs)
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def cut_now_and_then(self, seconds: float) -> None:
        """For a while, cuts at random moments, a few times a second."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(self._rng.uniform(0.05, 0.6))
            self.cut()

    def _accept(self) -> None:
        while self._open:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target_port), timeout=2.0)
            except OSError:
                near.close()  # the broker is down
                continue
            far.settimeout(None)
            with self._lock:
                self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
