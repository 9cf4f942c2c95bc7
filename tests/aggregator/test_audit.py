"""`fieldfold aggregator audit`: what people asked for is as it was written, or the first row that is not is named."""

from __future__ import annotations

import os
import pwd
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aggregator.cli import aggregator
from aggregator.config import LEDGER_FILE, AggregatorConfig
from aggregator.ledger.ledger import Ledger
from aggregator.ledger.seal import KEY_FILE, PUBLIC_FILES, Seal
from fieldfold.control.client import ControlClient
from fieldfold.errors import ControlError, StoreError
from tests.aggregator.running import RunningAggregator
from tests.aggregator.tiny import FEDERATION, bundle, config

Start = Callable[[AggregatorConfig], RunningAggregator]
ME = pwd.getpwuid(os.geteuid()).pw_name
ASKED = ("pause", "release", "resume", "roll back", "exclude", "readmit", "revoke", "publish task")


def written(folder: Path) -> Path:
    """A ledger with one operation of each kind, and its seal beside it."""
    folder.mkdir(exist_ok=True)
    ledger = Ledger(folder / LEDGER_FILE, FEDERATION)
    ledger.seal = Seal(folder)
    for command in ASKED:
        with ledger.transaction():
            ledger.put_operation(ME, command, "press-07", f"{command} was done")
    ledger.close()
    return folder / LEDGER_FILE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return written(tmp_path / "state")


def audit(path: Path, *more: str) -> Result:
    return CliRunner().invoke(aggregator, ["audit", "--ledger", str(path), *more])


def edit(path: Path, *statements: str) -> None:
    database = sqlite3.connect(path)
    with database:
        for statement in statements:
            database.execute(statement)
    database.close()


def test_what_was_written_is_printed_and_proved(path: Path) -> None:
    done = audit(path)

    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert [ASKED[row] in line and ME in line for row, line in enumerate(lines[:-1])] == [True] * len(ASKED)
    fingerprint = Seal(path.parent).fingerprint
    assert lines[-1].startswith(f"8 operations are as they were written, signed by {fingerprint[:16]}; note ")
    assert f"[{fingerprint[:8]}]" in lines[0]


@pytest.mark.parametrize(
    ("what", "statements", "broken"),
    [
        ("another did it", ["UPDATE operation SET who = 'nobody' WHERE id = 3"], "behind row 2: row 3"),
        ("it said something else", ["UPDATE operation SET result = '' WHERE id = 8"], "behind row 7: row 8"),
        ("it was another node", ["UPDATE operation SET subject = 'x' WHERE id = 1"], "behind row 0: row 1"),
        ("it was earlier", ["UPDATE operation SET at = at - 1 WHERE id = 5"], "behind row 4: row 5"),
        ("one was taken out", ["DELETE FROM operation WHERE id = 4"], "behind row 3: row 4 is missing"),
        (
            "one was taken out and the next put in its place",
            ["DELETE FROM operation WHERE id = 4", "UPDATE operation SET id = 4 WHERE id = 5"],
            "behind row 3: row 4",
        ),
        ("the first was taken out", ["DELETE FROM operation WHERE id = 1"], "behind row 0: row 1 is missing"),
        ("the last was taken out", ["DELETE FROM operation WHERE id = 8"], "behind row 7: the chain ends earlier"),
        ("all were taken out", ["DELETE FROM operation"], "behind row 0: the chain ends earlier"),
        ("its end is not signed", ["DELETE FROM meta WHERE key = 'operations_end'"], "the chain ends earlier"),
        (
            "two changed places",
            [
                "UPDATE operation SET id = 99 WHERE id = 2",
                "UPDATE operation SET id = 2 WHERE id = 3",
                "UPDATE operation SET id = 3 WHERE id = 99",
            ],
            "behind row 1: row 2",
        ),
        (
            "one was put in at the end",
            [
                "CREATE TEMP TABLE last AS SELECT * FROM operation WHERE id = 8",
                "UPDATE last SET id = 9, subject = '', result = ''",
                "INSERT INTO operation SELECT * FROM last",
            ],
            "behind row 8: row 9",
        ),
        (
            "a signature was taken off",
            ["UPDATE operation SET key = '', signature = '' WHERE id = 6"],
            "row 6 is not signed",
        ),
        ("it is another ledger's", ["UPDATE meta SET value = 'ab' WHERE key = 'name'"], "behind row 0: row 1"),
        ("a signature is no hex", ["UPDATE operation SET signature = 'zz' WHERE id = 2"], "behind row 1: row 2"),
    ],
)
def test_whoever_edits_the_file_is_found_out(path: Path, what: str, statements: list[str], broken: str) -> None:
    edit(path, *statements)

    done = audit(path)

    assert done.exit_code == 1, what
    assert "BROKEN" in done.output
    assert broken in done.output


def test_a_chain_made_anew_without_the_key_is_found_out(path: Path, tmp_path: Path) -> None:
    """Somebody writes the whole ledger's operations again, with a key of his own."""
    edit(path, "DELETE FROM operation")
    ledger = Ledger(path, FEDERATION)
    (tmp_path / "forger").mkdir()
    ledger.seal = Seal(tmp_path / "forger")
    with ledger.transaction():
        ledger.put_operation("somebody", "pause", "", "nothing happened")
    ledger.close()

    done = audit(path)

    assert done.exit_code == 1
    assert "row 1 is not signed by a key that is known here" in done.output
    assert audit(path, "--key", str(*(tmp_path / "forger").glob(PUBLIC_FILES))).exit_code == 0


def test_an_older_state_that_was_put_back_is_found_by_what_was_noted(path: Path) -> None:
    before = path.read_bytes()
    ledger = Ledger(path, FEDERATION)
    ledger.seal = Seal(path.parent)
    with ledger.transaction():
        ledger.put_operation(ME, "exclude", "press-08", "done")
    ledger.close()
    noted = audit(path).output.split()[-1]
    assert audit(path, "--noted", noted).exit_code == 0

    path.write_bytes(before)

    assert audit(path).exit_code == 0
    assert "an older state was put back" in audit(path, "--noted", noted).output


def test_words_that_would_move_the_terminal_are_shown_plain(path: Path) -> None:
    ledger = Ledger(path, FEDERATION)
    ledger.seal = Seal(path.parent)
    with ledger.transaction():
        ledger.put_operation("\x1b[31mroot\n", "pa\x07use", "", "\x1b]0;title\x07 done")
    ledger.close()

    assert "\x1b" not in audit(path).output
    assert "\x07" not in audit(path).output


def test_the_running_aggregator_is_audited_over_its_socket(start: Start) -> None:
    running = start(config())
    running.publish(bundle("raw", "none"))
    running.reaches(0)
    socket = running.service._control.path
    with ControlClient(socket) as client:
        client.command("pause")
        client.command("revoke", node="press-09")
        with pytest.raises(ControlError, match="is not a node name"):
            client.command("revoke", node="../press")

    done = CliRunner().invoke(aggregator, ["audit", "--socket", str(socket)])

    assert done.exit_code == 0, done.output
    assert [line.split()[4] for line in done.output.splitlines()[:-1]] == ["pause", "revoke"]
    assert running.service._reception.excluded == {"press-09": ME}


def test_a_seal_is_the_owners_alone_and_one_that_others_may_read_is_not_used(path: Path) -> None:
    key = path.parent / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    key.chmod(0o644)

    with pytest.raises(StoreError, match="may be read by others"):
        Seal(path.parent)


def test_a_lost_key_costs_no_proof_of_what_it_signed(path: Path) -> None:
    former = Seal(path.parent).fingerprint
    (path.parent / KEY_FILE).unlink()
    ledger = Ledger(path, FEDERATION)
    ledger.seal = Seal(path.parent)
    with ledger.transaction():
        ledger.put_operation(ME, "pause", "", "after the loss")
    ledger.close()

    done = audit(path)

    assert done.exit_code == 0, done.output
    assert (
        f"9 operations are as they were written, signed by {former[:16]}, {ledger.seal.fingerprint[:16]}"
        in done.output
    )


def test_without_the_public_key_nothing_is_believed(path: Path) -> None:
    for each in path.parent.glob(PUBLIC_FILES):
        each.rename(path.parent.parent / "kept.pub")

    assert audit(path).exit_code == 1
    assert audit(path, "--key", str(path.parent.parent / "kept.pub")).exit_code == 0
    assert isinstance(audit(path, "--key", str(path)).exception, StoreError)
