"""`fieldfold aggregator verify`: the log, folded again, gives what was released; or it says where it does not."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aggregator.cli import aggregator as command
from aggregator.fold.fedasync import FedAsync
from aggregator.fold.fedbuff import FedBuff
from aggregator.fold.rate_corrected_fedbuff import RateCorrectedFedBuff
from aggregator.history import audit
from aggregator.ledger.ledger import Ledger
from fieldfold.errors import ConfigError, StoreError
from fieldfold.wire.messages import ModelDelta, pack, unpack
from tests.aggregator.histories import UPDATES, written
from tests.aggregator.tiny import FEDERATION, bundle

TASK = bundle().digest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A history through three methods, with a crash at each change."""
    return written(
        tmp_path / "ledger.sqlite", FedBuff(buffer_size=3), FedAsync(), RateCorrectedFedBuff(buffer_size=2)
    )


def found(path: Path) -> audit.Finding:
    ledger = Ledger.existing(path)
    try:
        return audit.verify(ledger, TASK, lambda _: None)
    finally:
        ledger.close()


def verify(path: Path, *more: str) -> Result:
    return CliRunner().invoke(command, ["verify", "--ledger", str(path), *more])


def test_a_history_through_three_methods_replays_bit_for_bit_from_version_0(path: Path) -> None:
    finding = found(path)
    assert finding.difference is None
    assert (finding.from_version, finding.contributions) == (0, 3 * UPDATES)
    assert finding.versions == finding.to_version + 1 > UPDATES
    assert finding.checkpoints == 3, "of version 0, which is the first of its day, and the two newest"
    result = verify(path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"versions 0 to {finding.to_version} are bit for bit what was released" in result.stdout
    told = json.loads(verify(path, "--json").stdout)
    assert (told["task"], told["difference"], told["versions"]) == (TASK, None, finding.versions)


def alter(path: Path, change: str, *values: object) -> None:
    with sqlite3.connect(path) as database:
        assert database.execute(change, values).rowcount >= 1
    database.close()


def swap_delta(path: Path) -> None:
    """Another delta than the one that leads to version 5."""
    with sqlite3.connect(path) as database:
        [(four,), (five,)] = database.execute("SELECT delta FROM version WHERE version IN (4, 5) ORDER BY version")
        forged = ModelDelta(
            run=unpack(ModelDelta, five).run,
            version=5,
            parameters=unpack(ModelDelta, five).parameters,
            payload=unpack(ModelDelta, four).payload,
        )
        database.execute("UPDATE version SET delta = ? WHERE version = 5", (pack(forged),))
    database.close()


ALTERED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a version's digest": (
        lambda path: alter(path, "UPDATE version SET parameters = ? WHERE version = 5", "0" * 64),
        "version 5, contribution 15: its parameters come out as",
    ),
    "version 0's digest": (
        lambda path: alter(path, "UPDATE version SET parameters = ? WHERE version = 0", "0" * 64),
        "version 0, contribution 0: its parameters come out as",
    ),
    "the delta that went out": (
        swap_delta,
        "version 5, contribution 15: the parameters that its delta leads to come out as",
    ),
    "an update's weight": (
        lambda path: alter(path, "UPDATE contribution SET base_version = 4 WHERE id = 27"),
        "contribution 27: its parameters come out as",
    ),
    "an update's bytes": (
        lambda path: alter(path, "UPDATE contribution SET body = zeroblob(100) WHERE id = 4"),
        "version 1, contribution 4: it cannot be folded: not a ClientUpdate",
    ),
    "an update's last byte": (
        lambda path: alter(path, "UPDATE contribution SET digest = ? WHERE id = 4", "0" * 64),
        "version 1, contribution 4: update 2 of press-1 is not what was received",
    ),
    "an update that is gone": (
        lambda path: alter(path, "DELETE FROM contribution WHERE id = 5"),
        "version 2, contribution 7: it is completed by contribution 7, the ledger says 6",
    ),
    "a version that is gone": (
        lambda path: alter(path, "DELETE FROM version WHERE version = 3"),
        "version 3, contribution 9: the version is not in the ledger",
    ),
    "the end of the log": (
        lambda path: alter(path, "DELETE FROM contribution WHERE id >= "
                                 "(SELECT max(contribution) FROM version)"),
        "the log ends here, but version",
    ),
    "a checkpoint": (
        lambda path: alter(path, "UPDATE checkpoint SET exact = zeroblob(12) WHERE version = "
                                 "(SELECT version FROM checkpoint ORDER BY version LIMIT 1 OFFSET 1)"),
        "the checkpoint written here holds something else",
    ),
    "the first checkpoint": (
        lambda path: alter(path, "UPDATE checkpoint SET exact = zeroblob(12) WHERE version = 0"),
        "version 0, contribution 0: the checkpoint written here holds something else",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ALTERED)
def test_any_difference_is_named_with_version_and_contribution(path: Path, name: str) -> None:
    change, told = ALTERED[name]
    change(path)
    result = verify(path)
    assert result.exit_code == 1, result.output
    assert "DIFFERENT at " in result.stdout
    assert told in result.stdout
    difference = json.loads(verify(path, "--json").stdout)["difference"]
    assert f"version {difference['version']}, contribution {difference['contribution']}" in result.stdout


def test_an_update_that_was_not_folded_before_a_crash_is_no_difference(tmp_path: Path) -> None:
    path = written(tmp_path / "ledger.sqlite", FedBuff(buffer_size=1))
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM version WHERE version = ?", (UPDATES,))
    database.close()
    finding = found(path)
    assert (finding.difference, finding.to_version, finding.contributions) == (None, UPDATES - 1, UPDATES)


def test_a_ledger_that_an_aggregator_runs_on_is_left_alone(path: Path) -> None:
    """Another process: SQLite's locks are between processes."""
    running = Ledger(path, FEDERATION)
    program = "from fieldfold.cli.main import main; main()"
    arguments = ["aggregator", "verify", "--ledger", str(path)]
    asked = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    running.close()
    assert asked.returncode == StoreError.exit_code, asked.stderr
    assert "of a running aggregator take a backup, and look into that" in asked.stderr


def test_it_is_asked_by_file_or_by_configuration(path: Path, tmp_path: Path) -> None:
    config = tmp_path / "aggregator.toml"
    config.write_text('federation = "plant"\nstate_dir = "."\n[broker]\nurl = "mqtt://127.0.0.1"\n', encoding="utf-8")
    result = CliRunner().invoke(command, ["verify", "--config", str(config)])
    assert (result.exit_code, "bit for bit" in result.stdout) == (0, True), result.output
    for arguments in ([], ["--config", str(config), "--ledger", str(path)]):
        assert isinstance(CliRunner().invoke(command, ["verify", *arguments]).exception, ConfigError)


def test_what_is_no_ledger(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    for path, told in ((tmp_path / "none", "there is no such file"), (tmp_path / "other", "this is no ledger")):
        error = verify(path).exception
        assert isinstance(error, StoreError)
        assert told in error.reason
    assert not (tmp_path / "none").exists()
    assert (tmp_path / "other").read_bytes() == b"", "nothing is made of a file that is none"


def test_a_ledger_without_a_model_has_nothing_to_verify(tmp_path: Path) -> None:
    Ledger(tmp_path / "ledger.sqlite", FEDERATION).close()
    result = verify(tmp_path / "ledger.sqlite")
    assert (result.exit_code, result.stdout) == (0, "the ledger holds no model yet: there is nothing to verify\n")


def test_a_file_that_cannot_be_written_to(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a medium for backups; os.access says so to whoever is not root."""
    before = path.read_bytes()
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert found(path).difference is None
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before
