"""The aggregator as this node knows it: the key that it signs with, and the newest that it has said.

A broker is believed nothing: what it brings must be signed with a key that a certificate endorses whose own key is
pinned here, and what the aggregator has issued before something that was seen already is not taken any more.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from fieldfold.errors import SignatureError, StoreError
from fieldfold.trust.credentials import Standing, examine, read_authorities, read_pins
from fieldfold.trust.signing import Verifier, key_id
from fieldfold.wire.messages import Command, ModelManifest, Receipt, TaskManifest, read
from fieldfold.wire.topics import AGGREGATOR, Topics
from node_app.facts import Facts

log = logging.getLogger(__name__)
Issued = TypeVar("Issued", TaskManifest, ModelManifest, Command)


class Counterpart:
    """Used by the daemon's thread.

    Args:
        facts: keep what must outlive a restart.
        topics: the federation's.
        authority: certificates (PEM) of who certifies the aggregator; the pins lie beside it.

    Raises:
        ConfigError: when authority or pins cannot be read.
    """

    def __init__(self, facts: Facts, topics: Topics, authority: Path) -> None:
        self._facts, self._topics = facts, topics
        self._authorities, self._pins = read_authorities(authority), read_pins(authority)
        kept = facts.get("aggregator")
        self._standing = msgspec.msgpack.decode(kept, type=Standing) if kept else None
        if self._standing is not None and self._standing.pin not in self._pins:
            self._standing = None
        self._newest = {kind.__name__: facts.number(f"issued {kind.__name__}") for kind in Issued.__constraints__}
        self._refused: dict[str, str] = {}

    @property
    def trouble(self) -> str:
        """Why something that came in the aggregator's name is not taken; empty when the newest of all was good."""
        return next(iter(self._refused.values()), "")

    @property
    def is_known(self) -> bool:
        """Whether it has shown its key; what came before that is asked for again when it does."""
        return self._standing is not None

    def learn(self, payload: bytes) -> bool:
        """Takes what came on the aggregator's key topic; whether it signs with another key from now on.

        Raises:
            SignatureError: when it is not the key of an aggregator that is pinned here, or was replaced since.
        """
        topic, former = self._topics.aggregator_key, self._standing
        standing = examine(payload, topic, AGGREGATOR, self._authorities)
        if standing.pin not in self._pins:
            raise SignatureError(
                f"{topic}: the aggregator's certificate has a key that is not pinned here",
                "was the aggregator's identity replaced? then enrol again; else somebody poses as it",
            )
        self._standing = standing = standing.newest(former)
        self._keep("aggregator", msgspec.msgpack.encode(standing))
        if former is not None and former.public_key == standing.public_key:
            return False
        log.info("the aggregator signs with the key %s", key_id(standing.public_key).hex())
        return True

    def check_delta(self, digest: str, seal: bytes) -> None:
        """Whether the aggregator released the delta with this SHA-256 (hex).

        Raises:
            SignatureError: when not.
        """
        topic = self._topics.deltas
        try:
            self._verifier(topic).check(topic, digest, seal)
        except SignatureError as error:
            self._refused[topic] = str(error)
            raise
        self._refused.pop(topic, None)

    def receipt(self, topic: str, payload: bytes) -> Receipt:
        """What became of an update; it names the update's digest, so that it is good for no other.

        Raises:
            WireError: when it is none, or not the aggregator's.
        """
        return read(Receipt, self._open(topic, payload))

    def hear(self, kind: type[Issued], topic: str, payload: bytes, *, again: bool = True) -> Issued:
        """A message that says when it was issued; from now on no older one is taken.

        Args:
            kind: of the message.
            topic: where it came.
            payload: the message as it came.
            again: whether the same one may be heard again.

        Raises:
            WireError: when it is none, not the aggregator's, or older than what was heard before.
        """
        message = read(kind, self._open(topic, payload))
        newest = self._newest[kind.__name__]
        if message.issued < newest or (message.issued == newest and not again):
            error = SignatureError(
                f"{topic}: {_named(message)} was issued before what this node has seen already",
                "the broker says old things again; or the aggregator's clock and ledger were both put back",
            )
            if message.issued < newest:
                self._refused[topic] = str(error)
            raise error
        if message.issued > newest:
            self._newest[kind.__name__] = message.issued
            self._keep(f"issued {kind.__name__}", str(message.issued).encode())
        return message

    def _open(self, topic: str, payload: bytes) -> bytes:
        verifier = self._verifier(topic)
        try:
            content = verifier.open(topic, payload)
        except SignatureError as error:
            self._refused[topic] = str(error)
            raise
        self._refused.pop(topic, None)
        return content

    def _verifier(self, topic: str) -> Verifier:
        if self._standing is None:
            raise SignatureError(f"{topic}: the aggregator has not shown its key yet", "it does when it connects")
        return Verifier(self._standing.public_key, "the aggregator")

    def _keep(self, key: str, value: bytes) -> None:
        try:
            self._facts.put(key, value)
        except StoreError as error:
            log.error("it is not known any more after a restart what the aggregator said: %s", error)


def _named(message: TaskManifest | ModelManifest | Command) -> str:
    if isinstance(message, ModelManifest):
        return f"the model manifest of version {message.version}"
    if isinstance(message, TaskManifest):
        return f"the task {message.digest[:16]}"
    return f"the command {message.command}"
