"""A retained object that is read chunk by chunk, asking only for those that have not come. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import msgspec

from fieldfold.errors import WireError
from fieldfold.wire.chunks import Assembly, check_chunk, num_chunks, object_digest, short
from fieldfold.wire.messages import Chunk


class Wanted(NamedTuple):
    """An object to be fetched; for a delta `version` is the one it leads to, for a bundle it is 0."""

    kind: Literal["bundle", "snapshot", "delta"]
    version: int
    digest: str


class Announced(msgspec.Struct, frozen=True):
    """What a manifest says of an object."""

    digest: str
    size_bytes: int
    chunk_bytes: int


class Fetch:
    """The chunks below `prefix`; they are kept when the link is lost.

    Args:
        announced: None where the first chunk tells (the deltas in their slots).
        max_bytes: the largest object that is taken then.
        begun: what has come by another way of the object with this short digest.

    Attributes:
        outdated: another object lies there now; a newer manifest says where to go.
        seal: that came with an object that no manifest names.
    """

    def __init__(
        self,
        prefix: str,
        announced: Announced | None = None,
        *,
        max_bytes: int = 0,
        begun: Callable[[bytes], Assembly | None] = lambda _: None,
    ) -> None:
        self.prefix = prefix
        self.announced = announced
        self.outdated = False
        self.seal = b""
        self._max_bytes = announced.size_bytes if announced else max_bytes
        self._begun = begun
        self._assembly: Assembly | None = None
        self._fresh: dict[int, bytes] = {}

    def resume(self, pieces: Mapping[int, bytes]) -> None:
        """Goes on with the pieces of an announced object that came before a restart.

        Raises:
            WireError: when they cannot be pieces of it; nothing is taken then.
        """
        if self.announced is None:
            raise WireError("pieces are kept of announced objects only")
        chunks = [_piece(self.announced, index, data) for index, data in sorted(pieces.items())]
        for chunk in chunks:
            check_chunk(chunk, self.announced.size_bytes)
        for chunk in chunks[: num_chunks(self.announced.size_bytes, self.announced.chunk_bytes) - 1]:
            self._assembly = self._assembly or Assembly(chunk)
            self._assembly.add(chunk)

    def take_fresh(self) -> dict[int, bytes]:
        """The pieces that have come since this was asked last, by their position."""
        fresh, self._fresh = self._fresh, {}
        return fresh

    def missing(self, at_most: int) -> list[str]:
        """The topics of the next chunks to ask for."""
        if self._assembly is not None:
            return [f"{self.prefix}/{index}" for index in self._assembly.missing_from(at_most)]
        if self.announced is None:
            return [f"{self.prefix}/0"]
        count = num_chunks(self.announced.size_bytes, self.announced.chunk_bytes)
        return [f"{self.prefix}/{index}" for index in range(min(count, at_most))]

    def take(self, message: Chunk) -> bytes | None:
        """The whole object once its last chunk has come.

        Raises:
            WireError: when the chunks do not make up the object that was announced; it is to be read again.
        """
        if not self._belongs(message):
            self.outdated = True
            return None
        check_chunk(message, self._max_bytes)
        if self._assembly is None:
            self._assembly = self._begun(message.digest) or Assembly(message)
        if not self._assembly.fits(message):
            self._assembly = Assembly(message)
        if self._assembly.add(message) and self.announced is not None:
            self._fresh[message.index] = message.data
        if self._assembly.missing:
            return None
        assembly, self._assembly = self._assembly, None
        self._fresh.clear()
        self.seal = assembly.seal
        data = assembly.whole()
        if self.announced is not None and object_digest(data) != self.announced.digest:
            raise WireError("the object that was read is not the one that was announced", "it is read again")
        return data

    def _belongs(self, chunk: Chunk) -> bool:
        if self.announced is None:
            return self._assembly is None or chunk.digest == self._assembly.digest
        announced = (short(self.announced.digest), self.announced.size_bytes, self.announced.chunk_bytes)
        return (chunk.digest, chunk.total_bytes, chunk.chunk_bytes) == announced

    @property
    def progress(self) -> float:
        """Share of the chunks that have come."""
        return 0.0 if self._assembly is None else 1.0 - self._assembly.missing / self._assembly.num_chunks


def _piece(of: Announced, index: int, data: bytes) -> Chunk:
    return Chunk(
        digest=short(of.digest), total_bytes=of.size_bytes, chunk_bytes=of.chunk_bytes, index=index, data=data
    )
