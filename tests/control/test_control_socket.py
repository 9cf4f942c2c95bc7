"""Status out, commands in, over a real Unix socket."""

from __future__ import annotations

import json
import os
import pwd
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fieldfold.control import server as server_module
from fieldfold.control.client import ControlClient
from fieldfold.control.protocol import Request, default_socket
from fieldfold.control.server import Commands, ControlServer, _Session
from fieldfold.errors import ConfigError, ControlError

NOBODY = 65534
ME = pwd.getpwuid(os.geteuid()).pw_name


class State(msgspec.Struct, frozen=True):
    version: int
    detail: str = ""


class Daemon:
    """Something to ask: a status that can be changed, and three commands."""

    def __init__(self) -> None:
        self.version = 7

    def status(self) -> State:
        return State(self.version)

    def tail(self, after: int = 0) -> list[int]:
        return list(range(after, self.version))

    def release(self, asks: str, version: int) -> dict[str, int | str]:
        before, self.version = self.version, version
        return {"before": before, "asks": asks}

    def refuse(self, asks: str) -> None:
        raise ControlError(f"there is nothing to do, {asks}", "wait for an update")

    def say(self, asks: str, text: str, *, loud: bool = False) -> str:
        return f"{asks}: {text.upper() if loud else text}"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Daemon]]:
    """One server for all: it takes half a second to stop."""
    path, daemon = tmp_path_factory.mktemp("control") / "run" / "control.sock", Daemon()
    commands: Commands = {"release": daemon.release, "refuse": daemon.refuse, "say": daemon.say}
    server = ControlServer(path, daemon.status, commands, {"tail": daemon.tail})
    yield path, daemon
    server.stop()
    assert not path.exists()


@pytest.fixture
def daemon(running: tuple[Path, Daemon]) -> Daemon:
    running[1].version = 7
    return running[1]


@pytest.fixture
def path(running: tuple[Path, Daemon], daemon: Daemon) -> Path:
    assert daemon.version == 7
    return running[0]


@pytest.fixture
def client(path: Path) -> Iterator[ControlClient]:
    with ControlClient(path, timeout_s=10) as client:
        yield client


def test_status(client: ControlClient, daemon: Daemon) -> None:
    assert client.status() == {"version": 7, "detail": ""}
    daemon.version = 8
    while client.status()["version"] != 8:
        pass  # it is made now and then, however many ask


def test_commands_take_arguments_and_give_results(client: ControlClient) -> None:
    assert client.command("release", version=9) == {"before": 7, "asks": ME}
    assert client.status()["version"] == 9
    assert client.command("say", text="press\n\u00e4", loud=True) == f"{ME}: PRESS\n\u00c4"


class Counting:
    """Its status says how often it was made."""

    def __init__(self) -> None:
        self.made = 0

    def status(self) -> State:
        self.made += 1
        return State(self.made)


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[ControlServer]:
    server = ControlServer(tmp_path / "s", Counting().status, {"touch": lambda asks: asks})
    yield server
    server.stop()


def test_however_many_ask_a_status_is_made_now_and_then_and_after_each_command(
    counting: ControlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "FRESH_S", 1e9)
    with ControlClient(counting.path) as one, ControlClient(counting.path) as other:
        assert [each.status()["version"] for each in (one, other)] == [1, 1]
        other.command("touch")
        assert one.status()["version"] == 2


def test_whoever_asks_again_is_given_a_newer_one(counting: ControlServer) -> None:
    with ControlClient(counting.path) as client:
        assert [client.status()["version"] for _ in range(3)] == [1, 2, 3]


def test_a_thousand_that_are_asked_for_at_once_are_answered_with_the_same(counting: ControlServer) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(counting.path))
        client.sendall(b'{"ask":"status"}\n' * 1000)
        with client.makefile("rb") as answers:
            seen = [json.loads(answers.readline())["result"]["version"] for _ in range(1000)]
    assert seen == sorted(seen)
    assert seen[-1] <= 3, "64 kB come at once; the kernel may cut them"


def test_a_refusal_comes_with_its_reason_and_the_session_goes_on(client: ControlClient) -> None:
    with pytest.raises(ControlError) as caught:
        client.command("refuse")
    assert (caught.value.reason, caught.value.hint) == (f"there is nothing to do, {ME}", "wait for an update")
    assert client.status()["version"] == 7


def test_a_command_that_does_not_exist(client: ControlClient) -> None:
    with pytest.raises(ControlError, match="there is no command 'reboot'; known here: release, refuse, say"):
        client.command("reboot")


@pytest.mark.parametrize("arguments", [{}, {"version": 1, "colour": 2}])
def test_arguments_that_do_not_fit(client: ControlClient, arguments: dict[str, Any]) -> None:
    with pytest.raises(ControlError, match=r"release: .*argument"):
        client.command("release", **arguments)


def test_views_take_arguments(client: ControlClient) -> None:
    assert client.view("tail", after=5) == [5, 6]
    with pytest.raises(ControlError, match="there is no view 'release'; known here: tail"):
        client.view("release", version=1)
    with pytest.raises(ControlError, match=r"tail: .*argument"):
        client.view("tail", before=1)


def test_attaching_says_what_the_connection_may_do(client: ControlClient) -> None:
    rights = client.attach()
    assert (rights.may_command, rights.why_not) == (True, "")
    assert (rights.views, rights.commands) == (("tail",), ("release", "refuse", "say"))


def test_a_read_only_connection_cannot_command_and_cannot_change_that(
    path: Path, client: ControlClient, daemon: Daemon
) -> None:
    assert client.attach(read_only=True).why_not == "this connection is read-only"
    assert not client.attach(read_only=False).may_command
    with pytest.raises(ControlError, match="this connection is read-only; attach without read-only"):
        client.command("release", version=9)
    assert (client.status()["version"], client.view("tail", after=6), daemon.version) == (7, [6], 7)
    with ControlClient(path) as other:
        assert other.command("release", version=9) == {"before": 7, "asks": ME}


def test_watching_shows_every_change(path: Path, client: ControlClient) -> None:
    seen = client.watch(every_s=0.1)
    assert next(seen)["version"] == 7
    with ControlClient(path) as other:
        other.command("release", version=8)
    assert any(status["version"] == 8 for status in (next(seen) for _ in range(20)))


def test_watching_ends_with_the_daemon(tmp_path: Path, daemon: Daemon) -> None:
    server = ControlServer(tmp_path / "s", daemon.status, {})
    with ControlClient(tmp_path / "s") as client:
        seen = client.watch(every_s=0.1)
        next(seen)
        server.stop()
        assert len(list(seen)) <= 2  # and then it ends, long before the client's patience does


@pytest.mark.usefixtures("daemon")
def test_many_clients_at_once(path: Path) -> None:
    """All are answered; a status is kept for a moment, so that it may be the one of before."""
    answers: list[int] = []

    def ask() -> None:
        with ControlClient(path) as client:
            answers.extend(client.status()["version"] for _ in range(5))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 40
    assert set(answers) <= {7, 8}


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    busy = socket.socket(socket.AF_UNIX)
    busy.bind(str(tmp_path / "s"))
    busy.listen(0)
    first = ControlClient(tmp_path / "s")
    opened: list[ControlClient] = []
    second = threading.Thread(target=lambda: opened.append(ControlClient(tmp_path / "s")))
    second.start()
    second.join(0.05)
    assert not opened
    accepted, _ = busy.accept()
    second.join()
    assert opened
    for client in (first, *opened):
        client.close()
    for end in (accepted, busy):
        end.close()


def raw(path: Path, line: bytes) -> dict[str, Any]:
    """The answer to a line that no client of ours would send."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(line + b"\n")
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
            connection.sendall(msgspec.json.encode(Request(ask="status")) + b"\n")
            assert json.loads(lines.readline())["ok"], "the session did not go on"
            return answer


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"status",
        b"[]",
        b'{"ask": "everything"}',
        b'{"ask": "status", "colour": 1}',
        b'{"ask": "watch", "every_s": -1}',
        b'{"ask": "watch", "every_s": 1e300}',
        b'{"ask": "command", "command": "\xff"}',
        b'{"ask": "command", "arguments": {"a": ' + b"[" * 50_000,
    ],
    ids=lambda line: line[:40].decode("ascii", "replace"),
)
def test_what_is_no_request_is_answered_and_the_session_goes_on(path: Path, line: bytes) -> None:
    answer = raw(path, line)
    assert not answer["ok"]
    assert answer["reason"].startswith("not a request: ")


def test_only_owner_and_group_may_open_the_socket(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert stat.S_IMODE(path.parent.stat().st_mode) & 0o007 == 0


def test_another_user_may_look_but_not_command(
    monkeypatch: pytest.MonkeyPatch, client: ControlClient, daemon: Daemon
) -> None:
    monkeypatch.setattr(_Session, "_peer_uid", lambda _: NOBODY)  # what the kernel would say of him
    assert client.status()["version"] == 7
    assert client.attach().why_not == "this user may look but not command"
    with pytest.raises(ControlError, match="this user may look but not command"):
        client.command("release", version=1)
    assert daemon.version == 7


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="no daemon answers there; start it, or give --socket"):
        ControlClient(tmp_path / "none.sock")


def test_a_daemon_that_hangs_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        with (
            ControlClient(tmp_path / "s", timeout_s=0.1) as client,
            pytest.raises(ControlError, match="the daemon does not answer: timed out"),
        ):
            client.status()


def test_a_second_daemon_is_refused_and_the_first_goes_on(path: Path, client: ControlClient) -> None:
    with pytest.raises(ControlError, match="another daemon answers there"):
        ControlServer(path, Daemon().status, {})
    assert client.status()["version"] == 7


def test_the_socket_of_a_daemon_that_was_killed_is_replaced(tmp_path: Path, daemon: Daemon) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    server = ControlServer(path, daemon.status, {})
    with ControlClient(path) as client:
        assert client.status()["version"] == 7
    server.stop()


def test_a_file_that_is_no_socket_is_never_removed(tmp_path: Path, daemon: Daemon) -> None:
    path = tmp_path / "aggregator.toml"
    path.write_text("precious", encoding="utf-8")
    with pytest.raises(ControlError, match="there is a file that is no socket"):
        ControlServer(path, daemon.status, {})
    assert path.read_text(encoding="utf-8") == "precious"


def test_a_path_that_the_kernel_does_not_take(tmp_path: Path, daemon: Daemon) -> None:
    with pytest.raises(ConfigError, match="107 bytes"):
        ControlServer(tmp_path / ("s" * 108), daemon.status, {})


def test_a_folder_that_cannot_be_made(tmp_path: Path, daemon: Daemon) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ControlError, match="cannot be made"):
        ControlServer(tmp_path / "file" / "s", daemon.status, {})


def test_each_program_has_a_socket_of_its_own() -> None:
    assert default_socket("node").name == "node.sock"
    assert default_socket("aggregator").parent == default_socket("node").parent
