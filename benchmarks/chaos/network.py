"""A bad network: TCP proxies whose connections are cut in the middle of a packet, slowed down, or swallowed."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import Self

PIECE_BYTES = 4096


class BadLink:
    """Forwards from `port` on loopback to `target_port`; use as a context manager.

    Attributes:
        delay_s: how long every piece of at most PIECE_BYTES is held up.
        cuts: connections that were cut so far.
        bytes_up, bytes_down: forwarded so far to the target, and from it.
    """

    def __init__(self, target_port: int, seed: int = 0) -> None:
        self._target_port = target_port
        self._rng = random.Random(seed)  # noqa: S311 - guards nothing, and can be had again
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._bytes_left: int | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._open = True
        self.delay_s = 0.0
        self.cuts = self.bytes_up = self.bytes_down = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open = False
        self.heal()
        self._server.close()
        self.cut()

    # -- what happens to it --

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

    def truncate(self, after_bytes: int) -> None:
        """Lets so many bytes through, and cuts then."""
        self._bytes_left = after_bytes

    def swallow(self) -> None:
        """Nothing comes through any more, and nobody is told; until `heal`."""
        self._flowing.clear()

    def heal(self) -> None:
        """As it should be."""
        self.delay_s, self._bytes_left = 0.0, None
        self._flowing.set()

    # -- forwarding --

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
            for source, sink, count in ((near, far, self._count_up), (far, near, self._count_down)):
                threading.Thread(target=self._forward, args=(source, sink, count), daemon=True).start()

    def _count_up(self, size_bytes: int) -> None:
        with self._lock:
            self.bytes_up += size_bytes

    def _count_down(self, size_bytes: int) -> None:
        with self._lock:
            self.bytes_down += size_bytes

    def _forward(self, source: socket.socket, sink: socket.socket, count: Callable[[int], None]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE_BYTES):
                self._flowing.wait()
                if self.delay_s:
                    time.sleep(self.delay_s)
                let_through = self._let_through(data)
                sink.sendall(let_through)
                count(len(let_through))
                if self._bytes_left == 0:
                    self._bytes_left = None
                    self.cut()
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _let_through(self, data: bytes) -> bytes:
        with self._lock:
            if self._bytes_left is None:
                return data
            part = data[: self._bytes_left]
            self._bytes_left -= len(part)
            return part
