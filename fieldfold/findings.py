"""What a `doctor` found: one line each, in plain words, and an exit code for scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import msgspec

from fieldfold.cli.figures import plain
from fieldfold.errors import FieldfoldError

Level = Literal["ok", "note", "WRONG"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `WRONG` needs somebody; a `note` is worth knowing."""

    level: Level
    says: str
    hint: str = ""

    def __str__(self) -> str:
        return plain(f"{self.level:<5}  {self.says}" + (f"; {self.hint}" if self.hint else ""))


def looked_at(check: Callable[[], str]) -> Finding:
    """What `check` says when it succeeds, or its error as something that is wrong."""
    try:
        return Finding("ok", check())
    except FieldfoldError as error:
        return Finding("WRONG", error.reason, error.hint)


def verdict(findings: Iterable[Finding], say: Callable[[str], None]) -> int:
    """Says each finding as it comes, then the sum; the exit code is 1 where something is wrong, else 0."""
    wrong = total = 0
    for finding in findings:
        say(str(finding))
        total += 1
        wrong += finding.level == "WRONG"
    say(f"{total} checks, " + (f"{wrong} wrong" if wrong else "nothing wrong"))
    return 1 if wrong else 0
