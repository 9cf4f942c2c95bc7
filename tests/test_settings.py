"""Every mistake in a configuration file is named: file, key, remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from fieldfold import settings
from fieldfold.errors import ConfigError


class Fast(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="fast", tag_field="method"):
    rate: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class Slow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="slow", tag_field="method"):
    patience_s: float = 2.0


class Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    serial: str
    hours: int = 0

    def __post_init__(self) -> None:
        if self.serial == "0":
            raise ValueError("a serial of 0 is the simulator's")


class Plant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    message_bytes: Annotated[int, msgspec.Meta(ge=1024)] = 4096
    fold: Fast | Slow = Fast()
    engines: tuple[Engine, ...] = ()
    spare: Engine | None = None
    shift: Literal["day", "night"] | bool = False
    url: Annotated[str, msgspec.Meta(pattern="^mqtt://", description="for example mqtt://host")] = "mqtt://here"
    lines: dict[str, Engine] = {}


@pytest.fixture
def plant(tmp_path: Path) -> Any:
    path = tmp_path / "plant.toml"

    def load(text: str) -> Plant:
        path.write_text(text, encoding="utf-8")
        return settings.load(path, Plant)

    return load


def test_a_whole_file(plant: Any) -> None:
    loaded = plant(
        """
        name = "mill"
        message_bytes = 2048
        [fold]
        method = "slow"
        patience_s = 3          # an integer where a float is meant
        [[engines]]
        serial = "a"
        [spare]
        serial = "b"
        hours = 7
        [lines.north]
        serial = "c"
        """
    )
    assert loaded == Plant("mill", 2048, Slow(3.0), (Engine("a"),), Engine("b", 7), lines={"north": Engine("c")})


def test_defaults(plant: Any) -> None:
    assert plant('name = "mill"') == Plant("mill")


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("", "name: is missing", ""),
        ("name = 5", "name: expected text, got a whole number", ""),
        ('name = "a"\nmessage_bytes = "big"', "message_bytes: expected a whole number, got text", ""),
        ('name = "a"\nmessage_bytes = 5', "message_bytes: expected a whole number >= 1024", ""),
        ('name = "a"\nmesage_bytes = 5', "mesage_bytes: no such key", "did you mean message_bytes?"),
        ('name = "a"\ncolour = 5', "colour: no such key", "allowed here: name, message_bytes"),
        ('name = "a"\n[fold]\nmethod = "quick"', "fold.method: invalid value 'quick'", "allowed here: fast, slow"),
        ('name = "a"\n[fold]\nrate = 1', "fold.method: is missing", "allowed here: fast, slow"),
        ('name = "a"\n[fold]\nmethod = "slow"\nrate = 1', "fold.rate: no such key", "allowed here: patience_s"),
        ('name = "a"\n[fold]\nmethod = "fast"\nrate = 0', "fold.rate: expected a number > 0", ""),
        ('name = "a"\n[[engines]]\nserial = "a"\nhour = 1', "engines.hour: no such key", "did you mean hours?"),
        ('name = "a"\n[[engines]]\nhours = 1', "engines[0].serial: is missing", ""),
        ('name = "a"\n[spare]\nserial = "0"', "spare: a serial of 0 is the simulator's", ""),
        ('name = "a"\n[spare]\nserail = "1"', "spare.serail: no such key", "did you mean serial?"),
        ('name = "a"\n[lines.north]\nserail = "1"', "lines.north.serail: no such key", "did you mean serial?"),
        ('name = "a"\nshift = "noon"', "shift: invalid enum value 'noon'", "allowed here: day, night"),
        ('name = "a"\nurl = "http://h"', "url: expected text matching", "for example mqtt://host"),
        ('name = "a"\nname = "b"', "is not valid TOML", ""),
        ('name = "a', "is not valid TOML", ""),
    ],
)
def test_each_mistake(plant: Any, tmp_path: Path, text: str, said: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plant(text)
    assert caught.value.reason.startswith(f"{tmp_path / 'plant.toml'}: ")
    assert said in caught.value.reason
    assert remedy in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        settings.load(tmp_path / "none.toml", Plant)


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        settings.load(tmp_path, Plant)


def test_a_file_that_is_not_text(tmp_path: Path) -> None:
    path = tmp_path / "plant.toml"
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        settings.load(path, Plant)
