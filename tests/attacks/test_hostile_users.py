"""Another user of the same machine, as the kernel makes him: a process of his own, under his own number.

Only root may start such a process. Whoever is not root is refused already when he tries to become somebody else, and
what is left to look at is what the kernel goes by: the modes of files and folders.
"""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aggregator.ledger.seal import KEY_FILE, Seal
from fieldfold.control.server import ANOTHER_USER, ControlServer
from node_app.config import load
from node_app.daemon import Daemon
from tests.identities import broker_table

NOBODY = 65_534
IS_ROOT = os.geteuid() == 0
REFUSED, LET_IN = 41, 42


def as_another_user(do: Callable[[], object], *, group: int = NOBODY) -> int:
    """Runs `do` in a process of the user nobody, before any program would begin there; LET_IN, or why not."""

    def attempt() -> None:
        try:
            os._exit(LET_IN if do() else REFUSED)
        except PermissionError:
            os._exit(REFUSED)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads here; the child uses none of them
        return subprocess.call(
            [sys.executable], user=NOBODY, group=group, extra_groups=[], preexec_fn=attempt, cwd="/"
        )


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter; a test's own is root's alone, which would protect what lies in it."""
    with tempfile.TemporaryDirectory(dir="/tmp" if IS_ROOT else None) as folder:  # noqa: S108 - it is made anew
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def control(place: Path) -> Iterator[Path]:
    commands = {"release": lambda asks: f"released for {asks}"}
    server = ControlServer(place / "control.sock", lambda: {"version": 7}, commands)
    yield server.path
    server.stop()


def asked(path: Path, **request: str) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, object] = json.loads(connection.makefile("rb").readline())
        return answer


def test_another_user_at_the_control_socket(control: Path) -> None:
    assert asked(control, ask="status")["ok"]

    assert stat.S_IMODE(control.stat().st_mode) == 0o660
    if IS_ROOT:
        assert as_another_user(lambda: asked(control, ask="status")) == REFUSED


def test_another_user_of_the_daemons_group_may_look_but_not_command(control: Path) -> None:
    def looks() -> bool:
        return bool(asked(control, ask="status")["ok"])

    def is_refused_the_command() -> bool:
        answer = asked(control, ask="command", command="release")
        return not answer["ok"] and answer["reason"] == ANOTHER_USER

    if IS_ROOT:
        assert as_another_user(looks, group=control.stat().st_gid) == LET_IN
        assert as_another_user(is_refused_the_command, group=control.stat().st_gid) == LET_IN
    assert asked(control, ask="command", command="release")["ok"]


def test_another_user_reads_neither_store_nor_seal(place: Path) -> None:
    (place / "shift.csv").write_text("force,wear\n1,2\n")
    (place / "node.toml").write_text(
        'name = "press-07"\nfederation = "users"\nstate_dir = "state"\ncontrol_socket = "run/node.sock"\n'
        f'[broker]\n{broker_table("press-07")}[data]\nfiles = ["shift.csv"]\n'
    )
    before = os.umask(0o027)  # as `fieldfold node run` and `fieldfold aggregator run` have it
    try:
        Daemon(load(place / "node.toml"), place)._close()
        (place / "ledger").mkdir()
        Seal(place / "ledger")
    finally:
        os.umask(before)

    for path in (place / "state" / "node.sqlite", place / "state" / "signing.key", place / "ledger" / KEY_FILE):
        assert path.is_file()
        assert not stat.S_IMODE(path.stat().st_mode) & 0o007
        if IS_ROOT:
            assert as_another_user(path.read_bytes) == REFUSED
            assert as_another_user(lambda path=path: path.write_bytes(b"")) == REFUSED  # type: ignore[misc]


def test_another_user_who_takes_the_sockets_place_first(place: Path) -> None:
    """A file or socket of somebody else's is never followed, replaced or talked to."""
    (place / "taken").mkdir(mode=0o777)
    (place / "taken").chmod(0o777)
    path = place / "taken" / "control.sock"

    def takes_it() -> bool:
        return path.write_bytes(b"mine") == 4

    if IS_ROOT:
        assert as_another_user(takes_it) == LET_IN
    else:
        takes_it()

    with pytest.raises(Exception, match="a file that is no socket"):
        ControlServer(path, dict, {})
    assert path.read_bytes() == b"mine"
