"""Configuration files: TOML in, a typed and checked structure out, every mistake named with file, key and remedy."""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

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
        raise _explained(message, where.rstrip("`").lstrip("."), kind, origin) from None


_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list"}


def _explained(message: str, key: str, kind: Any, origin: str) -> ConfigError:
    """The error in the words of somebody who edits the file."""
    if missing := _MISSING.fullmatch(message):
        key, message = f"{key}.{missing[1]}".lstrip("."), "is missing"
    for name, words in _WORDS.items():
        message = message.replace(f"`{name}`", words)
    hint = _what_is_allowed(_type_at(kind, [part for part in re.split(r"[.\[]", key) if part]))
    return ConfigError(f"{origin}: {key or 'top level'}: {message[:1].lower()}{message[1:]}", hint)


def _type_at(kind: Any, path: list[str]) -> Any:
    """The type of the value at a path of keys and list indices; None where it cannot be told."""
    if not path:
        return kind
    options = [_bare(option) for option in _options(kind)]
    for option in options:
        if isinstance(option, type) and issubclass(option, msgspec.Struct):
            fields = {field.encode_name: field.type for field in msgspec.structs.fields(option)}
            if path[0] == option.__struct_config__.tag_field:
                return Literal[tuple(str(each.__struct_config__.tag) for each in options)]
            if path[0] in fields:
                return _type_at(fields[path[0]], path[1:])
        elif typing.get_args(option):
            return _type_at(typing.get_args(option)[1 if typing.get_origin(option) is dict else 0], path[1:])
    return None


def _what_is_allowed(kind: Any) -> str:
    """Allowed values, or the description that the type bears."""
    if typing.get_origin(kind) is typing.Annotated:
        described = [meta.description for meta in typing.get_args(kind)[1:] if getattr(meta, "description", None)]
        if described:
            return str(described[0])
    allowed = [
        str(value).lower() if isinstance(value, bool) else str(value)
        for option in map(_bare, _options(_bare(kind)))
        if typing.get_origin(option) is Literal
        for value in typing.get_args(option)
    ]
    return f"allowed here: {', '.join(allowed)}" if allowed else ""


def _options(kind: Any) -> tuple[Any, ...]:
    """The members of a union but None, or the type alone."""
    bare = _bare(kind)
    members = typing.get_args(bare) if typing.get_origin(bare) in (Union, types.UnionType) else (bare,)
    return tuple(member for member in members if member is not type(None))


def _bare(kind: Any) -> Any:
    """The type without its annotations."""
    return typing.get_args(kind)[0] if typing.get_origin(kind) is typing.Annotated else kind


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
    kind = _bare(kind)
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
