"""The screens in a real GNU screen with sixteen colours, inside a real tmux that shows what comes of it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.node_app.tui.scripted import ScriptedDaemon
from tests.terminal.tmux import Tmux, until


@pytest.mark.timeout(200)
def test_keys_the_mouse_and_the_clipboard(tmp_path: Path) -> None:
    if shutil.which("screen") is None:
        pytest.fail("GNU screen is not installed: `make test` installs it (apt install screen)", pytrace=False)
    daemon = ScriptedDaemon(tmp_path / "s")
    sockets = tmp_path / "screens"
    sockets.mkdir(mode=0o700)
    environment = f"env -u COLORTERM LC_ALL=C.UTF-8 SCREENDIR={sockets} TERM=xterm"
    command = f"{sys.executable} -m fieldfold node --socket {daemon.path}"
    with daemon.up():
        tmux = Tmux(tmp_path / "tmux", f"{environment} screen -U -c /dev/null {command}")
        try:
            tmux.reads("LEARNING", "#42 accepted", "\u28c0")
            tmux.press("?")
            tmux.reads("Help: Overview")
            tmux.press("Escape")
            tmux.reads("Needs you", "#42 accepted")
            tmux.press("t")
            tmux.reads("decision", "#39")
            tmux.press("c")
            tmux.was_copied("#42")
            tmux.press("q")
            until(lambda: not tmux.is_there, "q does not leave")
        finally:
            tmux.end()
