"""What a gateway and the machine beside the broker install: pinned, with hashes, and no more than they need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+) \\$", re.MULTILINE)
EXTRAS = {"node": ("enroll",), "aggregator": ("aggregator", "tui")}
HEAVY = {"torch", "onnx", "onnxscript", "matplotlib", "pytest"}


def name_of(requirement: str) -> str:
    return re.split(r"[<>=!~\[; ]", requirement)[0].lower().replace("_", "-")


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {name_of(line): line.partition("==")[2] for line in lines if "==" in line}


@pytest.mark.parametrize("which", EXTRAS)
def test_a_lock_pins_what_was_tested_together_each_with_its_hashes(which: str) -> None:
    text = (ROOT / f"packaging/{which}.lock").read_text(encoding="utf-8")
    pins = {name_of(name): version for name, version in PIN.findall(text)}
    versions = constraints()

    assert {name: versions.get(name, version) for name, version in pins.items()} == pins
    for block in re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]:
        assert "--hash=sha256:" in block, block.splitlines()[0]


@pytest.mark.parametrize("which", EXTRAS)
def test_a_lock_holds_all_that_is_asked_for_and_nothing_heavy(which: str) -> None:
    pins = {name_of(name) for name, _ in PIN.findall((ROOT / f"packaging/{which}.lock").read_text(encoding="utf-8"))}
    asked = [
        *PROJECT["dependencies"],
        *(each for extra in EXTRAS[which] for each in PROJECT["optional-dependencies"][extra]),
    ]

    assert {name_of(each) for each in asked} <= pins
    assert not pins & HEAVY


def test_no_lock_names_the_index_that_it_was_made_with() -> None:
    for which in EXTRAS:
        text = (ROOT / f"packaging/{which}.lock").read_text(encoding="utf-8")
        assert not re.search(r"https?://|--index-url|--find-links", text)
