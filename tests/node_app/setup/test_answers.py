"""What is answered at the first run becomes the node.toml that a person would write."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_config.initialise import initialise
from fieldfold.errors import ConfigError, FieldfoldError, LinkError
from node_app.config import load
from node_app.setup.answers import Answers, config, pairs, text

PLAIN = Answers(
    name="press-07",
    url="mqtt://127.0.0.1:1883",
    federation="plant",
    files="data/a.csv data/b*.csv",
    series="1",
    order="time",
    columns='s2=7 s3=temperature s.4="x"',
)


def test_it_reads_as_if_a_person_had_written_it(tmp_path: Path) -> None:
    assert (
        text(PLAIN, tmp_path)
        == """\
name = "press-07"
federation = "plant"
state_dir = "state"

[broker]
url = "mqtt://127.0.0.1:1883"

[data]
files = ["data/a.csv", "data/b*.csv"]
series = 1
order = "time"

[data.columns]
s2 = 7
s3 = "temperature"
"s.4" = "\\"x\\""
"""
    )


def test_the_file_loads_to_what_was_answered(tmp_path: Path) -> None:
    (tmp_path / "node.toml").write_text(text(PLAIN, tmp_path), encoding="utf-8")
    assert load(tmp_path / "node.toml") == config(PLAIN, tmp_path)


def test_a_folder_of_the_broker_gives_the_name_and_the_files(tmp_path: Path) -> None:
    initialise(tmp_path / "broker", port=8883, nodes=["press-07"])
    answers = msgspec.structs.replace(
        PLAIN, name="", identity="broker/identities/press-07", url="mqtts://localhost:8883"
    )
    found = config(answers, tmp_path)
    assert found.name == "press-07"
    assert (tmp_path / found.broker.key).is_file()
    assert found.broker.key == "broker/identities/press-07/press-07.key", "relative, as a person would write it"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "Press 07"}, "Press 07"),
        ({"url": "broker.plant"}, "url"),
        ({"files": ""}, "files"),
        ({"columns": "s2:7"}, "'s2:7' is not feature=column; for example s2=7"),
        ({"identity": "nowhere"}, "there are not ca.crt and one more .crt in it"),
    ],
)
def test_what_cannot_be_understood_is_one_line_with_what_to_do(
    tmp_path: Path, changes: dict[str, str], told: str
) -> None:
    with pytest.raises((ConfigError, LinkError)) as caught:
        config(msgspec.structs.replace(PLAIN, **changes), tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


ANYTHING = st.text(max_size=40)


@given(st.builds(Answers, **dict.fromkeys(("name", "url", "federation", "files", "series", "order"), ANYTHING)))
def test_whatever_is_typed_is_a_file_that_loads_to_it_or_an_error(answers: Answers) -> None:
    base = Path("/nowhere")
    try:
        wanted = config(answers, base)
    except FieldfoldError:
        return
    assert tomllib.loads(text(answers, base))["name"] == wanted.name
    assert tuple(tomllib.loads(text(answers, base))["data"]["files"]) == wanted.data.files


def test_columns_by_name_or_by_number() -> None:
    assert pairs("a=1 b=two") == {"a": 1, "b": "two"}
    assert pairs("  ") == {}
