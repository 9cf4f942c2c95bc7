"""The aggregator's configuration beside the broker, from which an invitation takes its federation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from broker_config.folder import BrokerFolder
from fieldfold.errors import ConfigError
from fieldfold.wire.topics import Topics

DEFAULT_FEDERATION = "plant"

_CONFIGURATION = """\
# Written by `fieldfold broker init`; yours to edit. Paths are relative to this file.
# Every key: docs/CONFIGURATION.md.
federation = "{federation}"
{state}
[broker]
url = "mqtts://localhost:{port}"
ca = "identities/aggregator/ca.crt"
certificate = "identities/aggregator/aggregator.crt"
key = "identities/aggregator/aggregator.key"
"""
_URL = re.compile(r'(?m)^(url[ \t]*=[ \t]*"mqtts://localhost:)\d+(")')


def configuration(folder: BrokerFolder, federation: str, port: int) -> str:
    """The text of aggregator.toml for an aggregator beside the broker."""
    is_a_service = folder.root.is_relative_to("/etc")  # its unit names the state folder, and nothing else
    state = "" if is_a_service else 'state_dir = "aggregator"         # the ledger\n'
    return _CONFIGURATION.format(federation=federation, port=port, state=state)


def with_port(text: str, port: int) -> str:
    """The configuration with the port that the broker listens on now, where it names this machine."""
    return _URL.sub(rf"\g<1>{port}\g<2>", text, count=1)


def federation_of(folder: BrokerFolder) -> str:
    """The federation of the aggregator beside this broker.

    Raises:
        ConfigError: when its configuration is not there, or names none.
    """
    path = folder.aggregator_configuration
    remedy = "say which one is meant: --federation NAME"
    try:
        name = tomllib.loads(path.read_text(encoding="utf-8")).get("federation")
    except FileNotFoundError:
        raise ConfigError(f"{path}: is not there, and it names the federation", remedy) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}", remedy) from None
    if not isinstance(name, str):
        raise ConfigError(f"{path}: names no federation", remedy)
    Topics(name)
    return name


def require_same(folder: BrokerFolder, federation: str, root: Path) -> None:
    """A configuration that is there keeps its federation.

    Raises:
        ConfigError: when it is another one.
    """
    present = federation_of(folder)
    if federation != present:
        raise ConfigError(
            f"{folder.aggregator_configuration}: is of {present}",
            f"for a second federation on this broker: fieldfold broker invite NODE --federation {federation}"
            f" --folder {root}, and an aggregator of its own",
        )
