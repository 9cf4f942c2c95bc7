"""Puts the chunks of client updates together, bounded per node."""

from __future__ import annotations

import msgspec

from fieldfold.errors import WireError
from fieldfold.wire.chunks import Assemblies, check_chunk
from fieldfold.wire.messages import MAX_OBJECT_BYTES, Chunk, ClientUpdate, unpack

OPEN_PER_NODE = 2
"""Updates of one node that may be incomplete at a time; the oldest makes way."""


class Whole(msgspec.Struct, frozen=True):
    """An update that is complete, as received and as read; the seal is not looked at yet."""

    body: bytes
    digest: str
    seal: bytes
    update: ClientUpdate


class Outcome(msgspec.Struct, frozen=True):
    """What a message did.

    Attributes:
        chunk: what it held.
        keep: it must be kept on disk: it is new and its update is not complete.
        whole: the update that it completed.
        malformed: why the object that it completed is no update.
        over: names of the updates whose chunks can be forgotten: complete, or given up for a newer one.
    """

    chunk: Chunk
    keep: bool = False
    whole: Whole | None = None
    malformed: str = ""
    over: tuple[bytes, ...] = ()


class Desk:
    """All updates under way. Memory is at most OPEN_PER_NODE x `max_bytes` a node, and only for what arrived."""

    def __init__(self) -> None:
        self._nodes: dict[str, Assemblies] = {}

    def give_up(self, node: str, digest: bytes) -> None:
        """Forgets what has come of an update."""
        if node in self._nodes:
            self._nodes[node].hand_over(digest)

    def take(self, node: str, chunk: Chunk, max_bytes: int) -> Outcome:
        """Takes a chunk from `node`'s update topic, of an update of at most `max_bytes`.

        Raises:
            WireError: when it is too large, or does not fit its object.
        """
        check_chunk(chunk, max_bytes)
        taken = self._nodes.setdefault(node, Assemblies(MAX_OBJECT_BYTES, OPEN_PER_NODE)).take(chunk)
        if taken.whole is None:
            keep = taken.fresh and not taken.spoiled
            return Outcome(chunk, keep=keep, malformed=taken.spoiled, over=taken.over)
        try:
            whole = Whole(taken.whole, taken.digest, taken.seal, unpack(ClientUpdate, taken.whole))
        except WireError as error:
            return Outcome(chunk, malformed=error.reason, over=taken.over)
        return Outcome(chunk, whole=whole, over=taken.over)
