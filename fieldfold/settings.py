"""Configuration files: TOML in, a typed and checked structure out, every mistake named with file, key and remedy."""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, Union

import msgspec

from fieldfold.errors import ConfigError

T = TypeVar("T")


def load(path: Path, kind: type[T]) -> T:
    """Reads the TOML file at `path` into the msgspec structure `kind`.

    Raises:
        ConfigError: naming the file, the key and the allowed values.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file", "give the path of a configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "check its permissions") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text", "save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}", "correct that line") from None
    return convert(document, kind, str(path))


def convert(document: Mapping[str, Any], kind: type[T], origin: str) -> T:
    """Checks a parsed document against `kind`; `origin` names it in errors.

    Raises:
        ConfigError: at the first key that is unknown, missing or has a value that is not allowed.
    """
    _refuse_unknown_keys(document, kind, origin, "")
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        key = where.rstrip("`").lstrip(".") or "top level"
        raise ConfigError(f"{origin}: {key}: {message[:1].lower()}{message[1:]}") from None


def _refuse_unknown_keys(value: object, kind: Any, origin: str, prefix: str) -> None:
    """Walks tables and arrays of tables beside the structure, so that the error can list what is allowed."""
    if isinstance(value, Mapping):
        struct = _struct_for(value, kind)
        if struct is not None:
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
            for key, inner in value.items():
                if key in fields:
                    _refuse_unknown_keys(inner, fields[key], origin, f"{prefix}{key}.")
                elif key != struct.__struct_config__.tag_field:
                    raise ConfigError(f"{origin}: {prefix}{key}: no such key", _suggest(key, list(fields)))
        elif typing.get_origin(kind) is dict:
            for key, inner in value.items():
                _refuse_unknown_keys(inner, typing.get_args(kind)[1], origin, f"{prefix}{key}.")
    elif isinstance(value, list) and typing.get_args(kind):
        for item in value:
            _refuse_unknown_keys(item, typing.get_args(kind)[0], origin, prefix)


def _struct_for(value: Mapping[Any, Any], kind: Any) -> type[msgspec.Struct] | None:
    """The structure that a table is meant to be: the only one, or the one whose tag the table bears."""
    if typing.get_origin(kind) is typing.Annotated:
        kind = typing.get_args(kind)[0]
    if typing.get_origin(kind) in (Union, types.UnionType):
        found = [option for option in typing.get_args(kind) if _struct_for(value, option)]
        tagged = [option for option in found if _tag_matches(value, option)]
        return tagged[0] if len(tagged) == 1 else None
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _tag_matches(value: Mapping[Any, Any], struct: type[msgspec.Struct]) -> bool:
    config = struct.__struct_config__
    return config.tag is None or value.get(config.tag_field) == config.tag


def _suggest(key: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(key, allowed, n=1)
    listed = f"allowed here: {', '.join(allowed)}"
    return f"did you mean {near[0]}? {listed}" if near else listed
