"""Who takes part in the tests: certificates of one authority, and the keys that sign."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.load.parties import Parties
from broker_config.folder import IdentityFiles
from fieldfold.link.session import LinkConfig
from fieldfold.trust.signing import Signer

NOBODY = "mqtt://127.0.0.1:1"
"""Where nobody listens."""


@cache
def parties() -> Parties:
    """All of this process."""
    root = Path(tempfile.mkdtemp(prefix="fieldfold-identities-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Parties(root)


def identity(name: str) -> IdentityFiles:
    """The files of the aggregator or a node."""
    return parties().files(name)


def link_config(name: str, url: str = NOBODY, **settings: Any) -> LinkConfig:
    """The `[broker]` table of the aggregator or a node."""
    return parties().link_config(name, url, **settings)


def broker_table(name: str, url: str = NOBODY) -> str:
    """The same as lines of TOML."""
    return parties().table(name, url)


def signer(name: str) -> Signer:
    """What a party that no program plays signs with."""
    return parties().signer(name)


def credential(name: str, topic: str) -> bytes:
    """What such a party shows on its key topic."""
    return parties().credential(name, topic)
