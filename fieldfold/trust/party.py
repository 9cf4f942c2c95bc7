"""One side of a federation as the other knows it: a certificate with its key, and the key that signs."""

from __future__ import annotations

from pathlib import Path

from fieldfold.trust.credentials import endorse
from fieldfold.trust.signing import Signer, load_signer
from fieldfold.trust.tls import require_name

KEY_FILE = "signing.key"
"""In a program's state_dir. Where it is removed another is made at the next start."""


class Party:
    """A node or the aggregator.

    Args:
        name: that its certificate must bear.
        topic: where it shows its key.
        certificate: PEM.
        key: of the certificate, PEM.
        state: folder of the program; the key that signs lies there.

    Attributes:
        signer: signs what it says.

    Raises:
        LinkError: when certificate or key are not fit.
        ConfigError: when they are somebody else's, or the key that signs cannot be used.
    """

    def __init__(self, name: str, topic: str, certificate: Path, key: Path, state: Path) -> None:
        require_name(certificate, key, name)
        self._certificate, self._key, self.topic = certificate, key, topic
        self.signer: Signer = load_signer(state / KEY_FILE)

    def credential(self) -> bytes:
        """What is published on `topic`, with the certificate as it is now: it may have been renewed.

        Raises:
            ConfigError: when the files are not there any more.
        """
        return endorse(self._certificate, self._key, self.topic, self.signer.public_key)
