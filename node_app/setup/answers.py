"""What a person answers, and the node.toml that is made of it. Pure, but for reading the identity's folder."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import msgspec

from fieldfold import settings
from fieldfold.errors import ConfigError
from fieldfold.trust.invitation import CODE_PREFIX, read_code
from fieldfold.trust.tls import check_certificate
from fieldfold.wire.topics import check_node_name
from node_app.config import NodeConfig

_BARE = re.compile(r"[A-Za-z0-9_-]+\Z")
_PAIR = re.compile(r"([A-Za-z0-9_.\-]{1,64})=(\S{1,256})\Z")
STATE_DIR: Final = "state"


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """The lines of the form, as they were typed.

    Attributes:
        identity: an invitation's code, which answers name, url and federation too; or a folder with ca.crt, NAME.crt
            and NAME.key, as `fieldfold broker init` writes it; empty without TLS.
        name: of the node; with an identity, empty for the certificate's.
        files: glob patterns, separated by spaces.
        columns: `feature=column`, separated by spaces; columns by name or by number.
        series, order: columns by name or by number; empty for none.
    """

    identity: str = ""
    name: str = ""
    url: str = ""
    federation: str = ""
    files: str = ""
    series: str = ""
    order: str = ""
    columns: str = ""


class Identity(msgspec.Struct, frozen=True):
    """The files of a certificate's folder, and the name in it."""

    name: str
    ca: Path
    certificate: Path
    key: Path
    expires_s: int


def identity(folder: str, base: Path) -> Identity:
    """What a folder of `fieldfold broker init` holds.

    Raises:
        ConfigError: when it is no such folder.
        LinkError: when a certificate cannot be used.
    """
    place = base / folder
    certificates = [path for path in sorted(place.glob("*.crt")) if path.name != "ca.crt"]
    if len(certificates) != 1 or not (place / "ca.crt").is_file():
        raise ConfigError(
            f"{place}: there are not ca.crt and one more .crt in it",
            "copy the folder identities/NAME that fieldfold broker init has made for this gateway",
        )
    certificate, key = certificates[0], certificates[0].with_suffix(".key")
    facts = check_certificate(certificate, key)
    return Identity(facts.common_name, place / "ca.crt", certificate, key, facts.expires_s)


def is_code(answer: str) -> bool:
    """Whether it is an invitation's code, or the beginning of one."""
    return answer.strip().startswith(CODE_PREFIX)


def settled(answers: Answers) -> Answers:
    """With the code of an invitation, what it says in place of what stands in other lines.

    Raises:
        ConfigError: when it is not all of a code.
    """
    if not is_code(answers.identity):
        return answers
    from node_app.enroll import IDENTITY  # noqa: PLC0415 - it needs cryptography, and whoever has no code does not

    invited = read_code(answers.identity)
    return msgspec.structs.replace(
        answers, identity=IDENTITY, name=invited.node, url=invited.url, federation=invited.federation
    )


def document(answers: Answers, base: Path) -> dict[str, Any]:
    """node.toml as a document.

    Raises:
        ConfigError: when an answer cannot be understood, or an invitation was not used yet.
        LinkError: when a certificate cannot be used.
    """
    invited = is_code(answers.identity)
    answers = settled(answers)
    if invited and not (base / answers.identity).is_dir():
        raise ConfigError("the invitation was not used yet", "enter uses it")
    broker: dict[str, Any] = {"url": answers.url.strip()}
    name = answers.name.strip()
    if folder := answers.identity.strip():
        found = identity(folder, base)
        name = name or found.name
        files = {"ca": found.ca, "certificate": found.certificate, "key": found.key}
        broker |= {what: _relative(path, base) for what, path in files.items()}
    data: dict[str, Any] = {"files": answers.files.split()}
    for what, said in (("series", answers.series.strip()), ("order", answers.order.strip())):
        if said:
            data[what] = _column(said)
    if columns := pairs(answers.columns):
        data["columns"] = columns
    check_node_name(name)
    return {
        "name": name,
        "federation": answers.federation.strip(),
        "state_dir": STATE_DIR,
        "broker": broker,
        "data": data,
    }


def config(answers: Answers, base: Path) -> NodeConfig:
    """The same, typed and checked.

    Raises:
        ConfigError: naming key and allowed values.
        LinkError: when a certificate cannot be used.
    """
    return settings.convert(document(answers, base), NodeConfig, "node.toml")


def text(answers: Answers, base: Path) -> str:
    """The same, as a person would write it.

    Raises:
        ConfigError: when an answer cannot be understood.
        LinkError: when a certificate cannot be used.
    """
    whole = document(answers, base)
    lines = [f"{key} = {_value(value)}" for key, value in whole.items() if not isinstance(value, dict)]
    for table in ("broker", "data"):
        columns = whole[table].pop("columns", None)
        lines += ["", f"[{table}]", *(f"{key} = {_value(value)}" for key, value in whole[table].items())]
        if columns:
            lines += ["", f"[{table}.columns]", *(f"{_key(key)} = {_value(value)}" for key, value in columns.items())]
    return "\n".join(lines) + "\n"


def pairs(said: str) -> dict[str, str | int]:
    """Feature -> column.

    Raises:
        ConfigError: when it is not of the form `feature=column feature=column`.
    """
    found: dict[str, str | int] = {}
    for word in said.split():
        parts = _PAIR.match(word)
        if parts is None:
            raise ConfigError(f"columns: {word[:80]!r} is not feature=column", "for example s2=7 s3=temperature")
        found[parts[1]] = _column(parts[2])
    return found


def _column(said: str) -> str | int:
    return int(said) if said.isascii() and said.isdigit() else said


def _relative(path: Path, base: Path) -> str:
    return str(path.relative_to(base)) if path.is_relative_to(base) else str(path)


def _key(key: str) -> str:
    return key if _BARE.match(key) else json.dumps(key)


def _value(value: Any) -> str:
    """A TOML value; its strings are those of JSON, but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
