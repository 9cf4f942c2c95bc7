"""Who takes part where no program plays them: certificates of one authority, and the keys that sign."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker_config.certificates import issue_identity, read_key_pair
from broker_config.folder import BrokerFolder, IdentityFiles
from broker_config.initialise import initialise
from fieldfold.link.session import LinkConfig
from fieldfold.trust.credentials import credential_of
from fieldfold.trust.signing import Signer
from fieldfold.wire.topics import AGGREGATOR


class Parties:
    """Identities as `fieldfold broker init` makes them, and more in memory, for those who only speak."""

    def __init__(self, root: Path) -> None:
        initialise(root)
        self._folder = BrokerFolder(root.absolute())
        self.authority = read_key_pair(self._folder.ca_certificate, self._folder.ca_key)
        self._signers: dict[str, Signer] = {}

    def files(self, name: str) -> IdentityFiles:
        """An identity on disk, made when it is asked for first."""
        found = self._folder.identity(name)
        if not found.key.is_file():
            initialise(self._folder.root, nodes=[name])
        return found

    def link_config(self, name: str, url: str, **settings: Any) -> LinkConfig:
        """A program's `[broker]` table."""
        files = self.files(name)
        ca, certificate, key = str(files.ca), str(files.certificate), str(files.key)
        return LinkConfig(url=url, ca=ca, certificate=certificate, key=key, **settings)

    def table(self, name: str, url: str) -> str:
        """The same as lines of TOML."""
        files = self.files(name)
        return f'url = "{url}"\nca = "{files.ca}"\ncertificate = "{files.certificate}"\nkey = "{files.key}"\n'

    def signer(self, name: str) -> Signer:
        """What somebody signs with."""
        if name not in self._signers:
            self._signers[name] = Signer(Ed25519PrivateKey.generate())
        return self._signers[name]

    def take_another_key(self, name: str) -> None:
        """From now on somebody signs with a new key."""
        self._signers[name] = Signer(Ed25519PrivateKey.generate())

    def credential(self, name: str, topic: str) -> bytes:
        """What such a one shows on its key topic; a node's certificate is on no disk."""
        if name == AGGREGATOR:
            files = self.files(name)
            pair = read_key_pair(files.certificate, files.key)
        else:
            pair = issue_identity(self.authority, name, dt.datetime.now(dt.UTC))
        return credential_of([pair.certificate], pair.key, topic, self.signer(name).public_key)
