"""Where the link's tests take place: a plain Mosquitto on loopback, or the in-memory twin."""

from __future__ import annotations

import queue
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fieldfold.link.memory import MemoryBroker, MemoryLink
from fieldfold.link.mqtt import MqttLink
from fieldfold.link.session import Event, Link, LinkConfig, Received, Will
from tests.conftest import free_port

E = TypeVar("E")
PATIENCE_S = 15.0


def wait_for(link: Link, kind: type[E], timeout_s: float = PATIENCE_S) -> E:
    """The next event of a kind; those before it are passed over."""
    deadline_s = time.monotonic() + timeout_s
    passed: list[Event] = []
    while True:
        try:
            event = link.events.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            raise AssertionError(f"no {kind.__name__} within {timeout_s} s; there were {passed}") from None
        if isinstance(event, kind):
            return event
        passed.append(event)


def receive(link: Link, count: int, *, ack: bool = True) -> list[Received]:
    """The next `count` messages, acknowledged as they come."""
    messages = []
    for _ in range(count):
        messages.append(wait_for(link, Received))
        if ack:
            link.ack(messages[-1])
    return messages


def payloads(messages: list[Received]) -> list[bytes]:
    return [message.payload for message in messages]


def receives_nothing(link: Link, within_s: float = 0.15) -> bool:
    """Whether no message comes within a time; other events are passed over."""
    deadline_s = time.monotonic() + within_s
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            if isinstance(link.events.get(timeout=left_s), Received):
                return False
        except queue.Empty:
            return True
    return True


def until(condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.01)


class PlainMosquitto:
    """A Mosquitto without TLS for anybody on loopback; `lines` are added to its configuration."""

    def __init__(self, folder: Path, lines: str = "allow_anonymous true") -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "data").mkdir(exist_ok=True)
        folder.joinpath("mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nuser root\npersistence true\n"
            f"persistence_location {folder / 'data'}/\nset_tcp_nodelay true\n{lines}\n",
            encoding="utf-8",
        )

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self._folder.joinpath("log").open("ab") as log:
            command = ["mosquitto", "-c", str(self._folder / "mosquitto.conf")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._listens)

    def stop(self) -> None:
        """Ends it in good order: sessions and retained messages are on disk."""
        self._end(subprocess.Popen.terminate)

    def kill(self) -> None:
        self._end(subprocess.Popen.kill)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            how(process)
            process.wait(PATIENCE_S)

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class World(Protocol):
    """A broker with links of either kind."""

    def link(self, client_id: str, will: Will | None = None) -> Link: ...

    def drop(self, client_id: str) -> None:
        """Cuts a link without a goodbye; it comes back by itself."""

    def stop(self) -> None: ...

    def start(self) -> None: ...

    def close(self) -> None: ...


class MemoryWorld:
    """Links in memory."""

    def __init__(self) -> None:
        self._broker = MemoryBroker()
        self.drop = self._broker.drop
        self.stop = self._broker.stop
        self.start = self._broker.start

    def link(self, client_id: str, will: Will | None = None) -> MemoryLink:
        return MemoryLink(self._broker, client_id=client_id, will=will)

    def close(self) -> None:
        self._broker.stop()


class MosquittoWorld:
    """Links over TCP."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._broker = PlainMosquitto(folder)
        self._links: dict[str, list[MqttLink]] = {}
        self.start = self._broker.start
        self.stop = self._broker.stop
        self.start()

    def link(self, client_id: str, will: Will | None = None) -> MqttLink:
        link = plain_link(self._broker.url, client_id, will=will, base=self._folder)
        self._links.setdefault(client_id, []).append(link)
        return link

    def drop(self, client_id: str) -> None:
        cut(self._links[client_id][-1])

    def close(self) -> None:
        for links in self._links.values():
            for link in links:
                link.stop()
        self._broker.kill()


def cut(link: MqttLink) -> None:
    """Ends the TCP connection under a link, as a network does: without a DISCONNECT."""
    assert link._up is not None
    sock: Any = link._up._client.socket()
    sock.shutdown(socket.SHUT_RDWR)


def plain_link(
    url: str, client_id: str, *, base: Path = Path(), will: Will | None = None, **settings: Any
) -> MqttLink:
    return MqttLink(LinkConfig(url=url, **settings), client_id=client_id, base=base, will=will)
