"""docs/SECURITY.md against the tests: every promise has one that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs/SECURITY.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(test_\w+)`", DOCUMENT)))
PROMISES = [
    line for line in DOCUMENT.partition("## What is promised")[2].splitlines() if re.match(r"\| [^|]*\| [a-z]", line)
]
WRITTEN = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


@pytest.mark.parametrize("name", NAMED)
def test_the_test_of_a_promise_exists(name: str) -> None:
    assert name in WRITTEN


def test_every_promise_names_its_test() -> None:
    rows = [line for line in PROMISES if not line.startswith("| against")]

    assert len(rows) > 20
    assert [line for line in rows if "`test_" not in line] == []
