"""One JSON object a line, both ways; a client asks, the daemon answers, `watch` answers again and again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import platformdirs

from fieldfold.errors import ConfigError

MAX_LINE_BYTES = 128 << 20
"""A task bundle travels as base64 in one line when it is published."""
MAX_SOCKET_PATH_BYTES = 107


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks.

    Attributes:
        ask: `status` once, `watch` one every `every_s` seconds, a `view` or a `command` by its name with arguments,
            or `attach`, which says what this connection may do.
        read_only: given with `attach`, this connection is refused every command from then on.
    """

    ask: Literal["status", "watch", "attach", "view", "command"]
    view: str = ""
    command: str = ""
    arguments: dict[str, Any] = {}
    every_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 1.0
    read_only: bool = False


class Rights(msgspec.Struct, frozen=True):
    """The answer to `attach`.

    Attributes:
        may_command: whether a command on this connection would be carried out.
        why_not: in words, where it would not.
        views, commands: the names known here.
    """

    may_command: bool
    why_not: str
    views: tuple[str, ...]
    commands: tuple[str, ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's answer; `result` is the status or what the command returned."""

    ok: bool
    result: Any = None
    reason: str = ""
    hint: str = ""


def default_socket(program: Literal["node", "aggregator"]) -> Path:
    """/run/fieldfold for root, a systemd unit's runtime folder where there is one, else the user's."""
    if given := os.environ.get("RUNTIME_DIRECTORY", ""):
        return Path(given.partition(":")[0]) / f"{program}.sock"
    if os.geteuid() == 0:
        return Path("/run/fieldfold") / f"{program}.sock"
    return Path(platformdirs.user_runtime_dir("fieldfold")) / f"{program}.sock"


def running_socket(program: Literal["node", "aggregator"]) -> Path:
    """Where a client looks: the default place, or the system's where only that has a socket."""
    mine, system = default_socket(program), Path("/run/fieldfold") / f"{program}.sock"
    try:
        return system if not mine.exists() and system.exists() else mine
    except OSError:
        return mine


def check_socket_path(path: Path) -> Path:
    """`path` itself when the kernel takes it as a Unix socket's address.

    Raises:
        ConfigError: when it is too long.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"{path}: a Unix socket's path may have {MAX_SOCKET_PATH_BYTES} bytes",
            "set control_socket to a shorter one",
        )
    return path
