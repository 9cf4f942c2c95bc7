"""`fieldfold node` and its status as commands: on a terminal, in a pipe, without textual, with nobody there."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError
from fieldfold.terminal.attachment import Attachment
from node_app import starting
from node_app.tui.reader import NodeReader
from node_app.tui.snapshot import Snapshot
from tests.identities import broker_table
from tests.node_app.process import NodeProcess
from tests.node_app.tui.scripted import ScriptedDaemon
from tests.terminal.screens import PATIENCE_S
from tests.terminal.tmux import end_daemon

WITHOUT_TEXTUAL = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"textual", "rich"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
CONFIG = f"""\
name = "press-07"
federation = "plant"
state_dir = "state"
control_socket = "node.sock"

[broker]
{broker_table("press-07")}

[data]
files = ["none.txt"]
"""
START = "from fieldfold.cli.main import main; main(sys.argv[1:])"


@pytest.fixture
def daemon(tmp_path: Path) -> ScriptedDaemon:
    return ScriptedDaemon(tmp_path / "node.sock")


def ended(*arguments: str, on_a_terminal: bool = False) -> tuple[int, str]:
    """`fieldfold node` on a gateway without textual: its exit code, and the one line that it ends with."""
    command = [sys.executable, "-c", WITHOUT_TEXTUAL + START, "node", *arguments]
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave} if on_a_terminal else {"stdin": subprocess.DEVNULL}
    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, timeout=PATIENCE_S, **streams)  # type: ignore[call-overload]
    finally:
        os.close(master)
        os.close(slave)
    (line,) = done.stderr.splitlines()
    return done.returncode, line


def test_nobody_there_is_one_line_with_what_to_do(daemon: ScriptedDaemon) -> None:
    code, line = ended("--socket", str(daemon.path), on_a_terminal=True)
    assert code == 7
    assert line == (
        f"fieldfold: {daemon.path}: no daemon answers there; start it, or give --socket if it listens elsewhere"
    )


def test_without_textual_it_says_how_to_get_it(daemon: ScriptedDaemon) -> None:
    with daemon.up():
        code, line = ended("--socket", str(daemon.path), on_a_terminal=True)
    assert code == 2
    assert "pip install 'fieldfold[tui]', or: fieldfold node status --watch" in line


def test_without_a_terminal_it_names_the_command_for_scripts(daemon: ScriptedDaemon) -> None:
    with daemon.up():
        code, line = ended("--socket", str(daemon.path))
    assert code == 2
    assert line.endswith("the screens need a terminal; in a script: fieldfold node status --json")


def test_a_browser_is_served_through_pipes(daemon: ScriptedDaemon) -> None:
    """As textual-serve starts it: what is drawn comes in packets of `D`, a length and bytes."""
    driver = {"TEXTUAL_DRIVER": "textual.drivers.web_driver:WebDriver", "COLUMNS": "80", "ROWS": "24"}
    command = [sys.executable, "-m", "fieldfold", "node", "--read-only", "--socket", str(daemon.path)]
    with daemon.up():
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with subprocess.Popen(command, env={**os.environ, **driver}, **pipes) as served:  # type: ignore[call-overload]
            assert served.stdout.readline() == b"__GANGLION__\n"
            drawn = b""
            while b"press-07" not in drawn:
                drawn += served.stdout.read1(4096)
            served.kill()
            served.stdin.close()


def test_the_daemon_never_imports_textual(tmp_path: Path) -> None:
    checked = "import atexit; atexit.register(lambda: print('seen:', {'textual', 'rich'} & set(sys.modules)))"
    with NodeProcess(tmp_path, broker_table("press-07"), prelude=f"import sys; {checked}") as node:
        node.hears("READY=1")
        assert node.ends() == 0
        assert "seen: set()" in node.log


@pytest.mark.parametrize("program", ["aggregator.service", "node_app.daemon"])
def test_importing_a_daemon_imports_no_textual(program: str) -> None:
    said = f"import sys, {program}; print({{'textual', 'rich'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["lines", "json"])
def test_watching_in_a_pipe_writes_no_escape_codes(daemon: ScriptedDaemon, form: list[str]) -> None:
    command = [sys.executable, "-m", "fieldfold", "node", "status", "--watch", "--every", "0.1", *form]
    with daemon.up():
        watching = subprocess.Popen([*command, "--socket", str(daemon.path)], stdout=subprocess.PIPE, text=True)
        assert watching.stdout is not None
        first = watching.stdout.readline()
        daemon.say(state="paused")
        seen = [first]
        while "paused" not in seen[-1]:
            seen.append(watching.stdout.readline())
    rest, _ = watching.communicate(timeout=PATIENCE_S)
    assert watching.returncode == 0, "it ends with the daemon"
    assert "\x1b" not in "".join(seen) + rest
    if form:
        assert json.loads(seen[0])["state"] == "learning"
    else:
        assert seen[0] == "node      press-07 of plant: learning\n"


def test_watching_on_a_terminal_writes_over_what_it_wrote(daemon: ScriptedDaemon) -> None:
    command = [sys.executable, "-m", "fieldfold", "node", "status", "--watch", "--every", "0.1"]
    master, slave = pty.openpty()
    shown = b""
    command += ["--socket", str(daemon.path)]
    with daemon.up(), subprocess.Popen(command, stdin=slave, stdout=slave) as watching:
        os.close(slave)
        while shown.count(b"press-07") < 2:
            shown += os.read(master, 4096)
        watching.send_signal(signal.SIGINT)
        assert watching.wait(PATIENCE_S) == 0, "Ctrl-C is how it is ended"
    os.close(master)
    first, _, second = shown.partition(b"\x1b[")
    assert first.count(b"\n") == int(second.partition(b"A")[0])


def test_a_daemon_of_another_version_is_named(daemon: ScriptedDaemon) -> None:
    told: list[Snapshot] = []
    daemon.status = lambda: {"state": "learning"}  # type: ignore[method-assign, assignment, return-value]
    with daemon.up():
        attachment = Attachment(
            daemon.path,
            reader=NodeReader(),
            empty=Snapshot(),
            read_only=True,
            tell=told.append,
            answer=print,
            every_s=0.01,
        )
        attachment.start()
        while not told:
            pass
        attachment.stop()
    assert "is it of another version?" in told[0].lost


def test_no_daemon_is_started_without_a_terminal_or_without_textual(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(CONFIG, encoding="utf-8")
    code, line = ended("--config", str(config))
    assert (code, line.endswith("in a script: fieldfold node status --json")) == (2, True)
    code, line = ended("--config", str(config), on_a_terminal=True)
    assert (code, "pip install 'fieldfold[tui]'" in line) == (2, True)
    code, line = ended("--config", str(config), "--read-only", on_a_terminal=True)
    assert (code, "no daemon answers there" in line) == (7, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["node.toml"], "nothing was started"


def test_a_configuration_that_is_none_starts_nothing(tmp_path: Path) -> None:
    code, line = ended("--config", str(tmp_path / "none.toml"), on_a_terminal=True)
    assert code == 2
    assert "none.toml" in line


def test_a_daemon_that_ends_at_once_is_said_with_its_reason(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(CONFIG.replace("certificate =", "username ="), encoding="utf-8")
    with pytest.raises(ControlError, match=r"the daemon has ended: .*certificate not set"):
        starting.start(config)
    assert "certificate not set" in (tmp_path / "state" / "node.log").read_text(encoding="utf-8")


def test_a_daemon_is_started_and_answers_before_the_screens_open(tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(CONFIG, encoding="utf-8")
    starting.start(config)
    try:
        with ControlClient(starting.socket_of(config)) as client:
            assert client.status()["node"] == "press-07"
    finally:
        end_daemon(starting.socket_of(config))
