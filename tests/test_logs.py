from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from fieldfold import logs


@pytest.fixture(autouse=True)
def _handlers_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_text_is_one_line_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(level="info")
    logging.getLogger("test").info("version %d is out", 3)
    logging.getLogger("test").debug("too much")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("INFO    version 3 is out\n")
    assert captured.err.count("\n") == 1


def test_nothing_from_outside_can_forge_a_line_or_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    logging.getLogger("test").warning("it says %s", "x\n2026-01-01 ERROR forged\r\x1b[2J\u2028end")
    text = capsys.readouterr().err
    assert len(text.splitlines()) == 1
    assert "\x1b" not in text
    assert r"x\n2026-01-01 ERROR forged\r\x1b[2J\u2028end" in text


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(level="debug", form="json")
    logging.getLogger("aggregator.service").error("two\nlines")
    try:
        int("odd")
    except ValueError:
        logging.getLogger("aggregator.service").exception("it broke")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("error", "aggregator.service", "two\nlines")
    assert first["time"].endswith("+00:00")
    assert "ValueError: invalid literal" in second["traceback"]


def test_a_second_call_replaces_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    logs.set_up()
    logging.getLogger("test").info("once")
    assert capsys.readouterr().err.count("once") == 1


def test_the_tail_remembers_the_newest_lines_and_ends_with_its_daemon() -> None:
    logs.set_up(level="info")
    tail = logs.Tail()
    log = logging.getLogger("test")
    for number in range(logs.LINES_KEPT + 5):
        log.warning("line %d", number)
    log.error("it says %s", "\x1b[2Jforged\n")
    kept = tail.entries.after()
    assert (kept.end, len(kept.items)) == (logs.LINES_KEPT + 6, logs.LINES_KEPT)
    assert (kept.items[-1].level, kept.items[-1].text) == ("error", r"it says \x1b[2Jforged\n")
    tail.close()
    log.warning("nobody hears this")
    assert tail.entries.end == kept.end


def test_a_line_that_cannot_be_put_together_does_not_stop_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up()
    tail = logs.Tail()
    too_few = (1,)
    logging.getLogger("test").warning("%d and %d", *too_few)
    tail.close()
    assert tail.entries.end == 0
    assert "not enough arguments" in capsys.readouterr().err
