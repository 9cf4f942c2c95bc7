"""docs/CONFIGURATION.md against the structures that node.toml and aggregator.toml are read into."""

from __future__ import annotations

import inspect
import re
import tomllib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from aggregator import config as aggregator_config
from aggregator.fold.buffered import Buffered
from fieldfold import settings
from fieldfold.codec import PROFILES
from fieldfold.errors import FieldfoldError
from fieldfold.sensors import dataset
from fieldfold.sensors.schema import ColumnTarget, DataSchema, Feature
from node_app import config as node_config

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs/CONFIGURATION.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
FILES: dict[str, type[msgspec.Struct]] = {
    "node.toml": node_config.NodeConfig,
    "aggregator.toml": aggregator_config.AggregatorConfig,
}
KEY_TABLE = "| key | value | default | unit, limits | |"

Structure: typing.TypeAlias = type[msgspec.Struct]


class Row(msgspec.Struct, frozen=True):
    """One line of a table of keys."""

    default: str
    limits: str


def sections() -> Iterator[tuple[str, str]]:
    """Heading and text of each section, examples left out (a comment in TOML looks like a heading)."""
    text = re.sub(r"^```.*?^```$", "", DOCUMENT, flags=re.MULTILINE | re.DOTALL)
    for section in re.split(r"^#+ ", text, flags=re.MULTILINE)[1:]:
        heading, _, body = section.partition("\n")
        yield heading, body


def rows_of(body: str) -> dict[str, Row]:
    """Key -> row of the table in a section."""
    lines = body[body.index(KEY_TABLE) :].split("\n\n", maxsplit=1)[0].splitlines()[2:]
    rows = {}
    for line in lines:
        key, _, default, limits, _ = (cell.strip() for cell in line.strip("|").split(" |"))
        assert re.fullmatch(r"`\w+`", key), line
        assert key.strip("`") not in rows, line
        rows[key.strip("`")] = Row(default, limits)
    return rows


TABLES = {heading: rows_of(body) for heading, body in sections() if KEY_TABLE in body}


def bare(kind: Any) -> Any:
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


def options(kind: Any) -> tuple[Any, ...]:
    """The members of a union, or the type alone."""
    is_union = typing.get_origin(bare(kind)) in (typing.Union, types.UnionType)
    return typing.get_args(bare(kind)) if is_union else (kind,)


def structures() -> Iterator[tuple[str, Structure]]:
    """What a heading must name, in backticks, for each structure that the two files consist of."""
    yield "rule", Buffered
    for name, whole in FILES.items():
        yield name, whole
        for field in msgspec.structs.fields(whole):
            yield from tables_of(field)


def tables_of(field: msgspec.structs.FieldInfo) -> Iterator[tuple[str, Structure]]:
    """The structures that a key may hold; of those with a tag also the ones within."""
    option: Any
    for option in options(field.type):
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            config = option.__struct_config__
            yield f'{config.tag_field} = "{config.tag}"' if config.tag else f"[{field.name}]", option
            for inner in msgspec.structs.fields(option) if config.tag else ():
                yield from tables_of(inner)


def own_fields(structure: Structure) -> list[msgspec.structs.FieldInfo]:
    """Those that it does not have from the structure above it, which has a table of its own, or has otherwise."""
    own = inspect.get_annotations(structure)
    return [field for field in msgspec.structs.fields(structure) if field.name in own]


STRUCTURES = sorted(set(structures()), key=lambda each: each[0])


def documented(name: str) -> dict[str, Row]:
    """The one table under a heading that names `name`."""
    found = [rows for heading, rows in TABLES.items() if f"`{name}`" in heading]
    assert len(found) == 1, f"{len(found)} tables of keys stand under a heading with `{name}`"
    return found[0]


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """The default as the document writes it."""
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is msgspec.NODEFAULT:
        return "required"
    return "left out" if value is None or isinstance(value, msgspec.Struct) else f"`{as_toml(value)}`"


def as_toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:.15g}"
    if isinstance(value, tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def limits_of(kind: Any) -> Iterator[str]:
    """What the cell of limits must say: ranges of numbers, and each word that is allowed."""
    for option in options(kind):
        if typing.get_origin(option) is Literal:
            yield from (f"`{value}`" for value in typing.get_args(option))
        elif typing.get_origin(option) is typing.Annotated and bare(option) in (int, float):
            yield from (range_of(meta) for meta in typing.get_args(option)[1:])


def range_of(meta: msgspec.Meta) -> str:
    if meta.gt is not None:
        return f"above {meta.gt}" if meta.le is None else f"above {meta.gt}, to {meta.le}"
    if meta.lt is not None:
        return f"{meta.ge} to below {meta.lt}"
    return f"{meta.ge} or more" if meta.le is None else f"{meta.ge} to {meta.le}"


@pytest.mark.parametrize(("name", "structure"), STRUCTURES, ids=[name for name, _ in STRUCTURES])
def test_a_table_lists_the_keys_of_its_structure_and_no_other(name: str, structure: Structure) -> None:
    keys = {field.encode_name for field in own_fields(structure)}
    tag_field = structure.__struct_config__.tag_field
    assert set(documented(name)) == keys | ({tag_field} if tag_field else set())


@pytest.mark.parametrize(("name", "structure"), STRUCTURES, ids=[name for name, _ in STRUCTURES])
def test_every_key_stands_there_with_its_default_and_its_limits(name: str, structure: Structure) -> None:
    rows = documented(name)
    for field in own_fields(structure):
        row = rows[field.encode_name]
        assert row.default == default_of(field), field.name
        for limit in limits_of(field.type):
            assert re.search(rf"(?<![\w.]){re.escape(limit)}(?![\w.])", row.limits), (field.name, limit)


def test_every_table_of_keys_belongs_to_a_structure() -> None:
    names = [f"`{name}`" for name, _ in STRUCTURES]
    assert [heading for heading in TABLES if not any(name in heading for name in names)] == []


def test_every_codec_profile_is_listed() -> None:
    assert re.findall(r"`(\w+)`", documented("[codec]")["profile"].limits) == list(PROFILES)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_loads(number: int, tmp_path: Path) -> None:
    path = tmp_path / "example.toml"
    path.write_text(EXAMPLES[number], encoding="utf-8")
    if "name" in tomllib.loads(EXAMPLES[number]):
        node_config.load(path)
    else:
        aggregator_config.load(path)


def test_there_are_examples_of_both_files() -> None:
    assert {"name" in tomllib.loads(example) for example in EXAMPLES} == {True, False}


def test_the_examples_read_the_documents_csv_as_the_document_says(tmp_path: Path) -> None:
    csv = re.search(r"^```csv\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert csv is not None
    for folder in ("logs", "held-out"):
        (tmp_path / folder).mkdir()
        rows = csv[1] if folder == "logs" else csv[1].replace(";setting up", ";good")
        (tmp_path / folder / "2024-05-01.csv").write_text(rows, encoding="utf-8")
    schema = DataSchema(
        features=(Feature("current", "A"), Feature("temperature", "C"), Feature("vibration", "mm/s")),
        window=2,
        target=ColumnTarget("state", classes=("good", "worn")),
    )
    node = settings.convert(tomllib.loads(EXAMPLES[0]), node_config.NodeConfig, "the first example")
    found = dataset.load(schema, node.data, tmp_path, held_out=True)
    assert found.test.all()["y"].tolist() == [0, 1], "P7's window before the set-up, P8's after the missing value"
    assert (found.report.series, found.report.missing_cells) == (2, 1)
    assert sum(found.report.dropped_windows.values()) == 3
    beside = settings.convert(tomllib.loads(EXAMPLES[1]), aggregator_config.AggregatorConfig, "the second example")
    assert beside.evaluation is not None
    held_out = dataset.load(schema, beside.evaluation, tmp_path, held_out=True)
    assert held_out.test.all()["y"].tolist() == [0, 0, 1]


def test_the_exit_codes_are_those_of_the_exceptions() -> None:
    body = dict(sections())["Exit codes"]
    said = {int(code) for code in re.findall(r"^\| (\d+) \|", body, re.MULTILINE)}
    assert said == {0} | {error.exit_code for error in every_error(FieldfoldError)}


def every_error(error: type[FieldfoldError]) -> Iterator[type[FieldfoldError]]:
    yield error
    for inner in error.__subclasses__():
        yield from every_error(inner)
