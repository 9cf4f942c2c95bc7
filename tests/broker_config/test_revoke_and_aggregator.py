"""`fieldfold broker revoke` tells the aggregator on its machine, which writes it down and takes nothing more."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker_config.cli import broker
from broker_config.initialise import initialise
from fieldfold.control.server import ControlServer

ME = pwd.getpwuid(os.geteuid()).pw_name


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A broker's folder, on a machine whose sockets lie in a folder of this test."""
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    initialise(tmp_path / "broker", nodes=["press-07"])
    return tmp_path / "broker"


@pytest.fixture
def told(tmp_path: Path) -> Iterator[list[tuple[str, str]]]:
    """What somebody who listens as the aggregator does was told."""
    heard: list[tuple[str, str]] = []

    def revoke(asks: str, node: str) -> str:
        heard.append((asks, node))
        return f"{node} was revoked at the broker: nothing of it is taken any more"

    server = ControlServer(tmp_path / "run" / "aggregator.sock", dict, {"revoke": revoke})
    yield heard
    server.stop()


def test_the_aggregator_is_told_by_whom(root: Path, told: list[tuple[str, str]]) -> None:
    said = CliRunner().invoke(broker, ["revoke", "press-07", "--folder", str(root)]).output

    assert "The aggregator: press-07 was revoked at the broker" in said
    assert told == [(ME, "press-07")]


def test_where_none_runs_what_to_do_there_is_said(root: Path) -> None:
    done = CliRunner().invoke(broker, ["revoke", "press-07", "--folder", str(root)])

    assert done.exit_code == 0, done.output
    assert "Where it runs: fieldfold aggregator exclude press-07" in done.output


def test_who_invites_a_revoked_name_again_is_reminded_of_the_aggregator(root: Path) -> None:
    CliRunner().invoke(broker, ["revoke", "press-07", "--folder", str(root)])

    said = CliRunner().invoke(broker, ["invite", "press-07", "--folder", str(root)]).stderr

    assert "when it has joined: fieldfold aggregator readmit press-07" in said
