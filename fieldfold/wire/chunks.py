"""Cutting an object into messages a broker takes, and putting it together again whatever arrives, in any order."""

from __future__ import annotations

import collections
import hashlib
import itertools
from collections.abc import Iterator

import msgspec

from fieldfold.errors import WireError
from fieldfold.wire.messages import MAX_CHUNKS, MAX_OBJECT_BYTES, Chunk, pack

ENVELOPE_BYTES = 124
"""Upper bound of what a chunk's own fields take of a message."""
SHORT_DIGEST_BYTES = 8
SEAL_BYTES = 72


def object_digest(data: bytes) -> str:
    """SHA-256 of a whole object in hex, as readable messages give it."""
    return hashlib.sha256(data).hexdigest()


def short(digest: str) -> bytes:
    """The first 8 bytes of a digest in hex: how binary messages name what the digest belongs to."""
    return bytes.fromhex(digest[: 2 * SHORT_DIGEST_BYTES])


def chunk_size(message_bytes: int) -> int:
    """How many bytes of an object fit a message of at most `message_bytes`."""
    return max(1, message_bytes - ENVELOPE_BYTES)


def num_chunks(total_bytes: int, chunk_bytes: int) -> int:
    """How many chunks an object of `total_bytes` is cut into."""
    return -(-total_bytes // chunk_bytes)


def cut(data: bytes, chunk_bytes: int, seal: bytes = b"") -> Iterator[bytes]:
    """The packed chunks of `data`, in order; the first one bears the seal.

    Raises:
        WireError: when `data` is empty or larger than MAX_OBJECT_BYTES.
    """
    if not 0 < len(data) <= MAX_OBJECT_BYTES:
        raise WireError(f"an object of {len(data)} bytes cannot be sent", f"1 to {MAX_OBJECT_BYTES} are allowed")
    name = short(object_digest(data))
    for index in range(num_chunks(len(data), chunk_bytes)):
        start = index * chunk_bytes
        yield pack(
            Chunk(
                digest=name,
                total_bytes=len(data),
                chunk_bytes=chunk_bytes,
                index=index,
                data=data[start : start + chunk_bytes],
                seal=b"" if index else seal,
            )
        )


def check_chunk(chunk: Chunk, max_bytes: int) -> None:
    """Whether the chunk can be a piece of what it claims, and the whole is not too large for us.

    Raises:
        WireError: when it cannot.
    """
    if chunk.total_bytes > max_bytes:
        raise WireError(f"an object of {chunk.total_bytes} bytes; at most {max_bytes} are taken here")
    if chunk.num_chunks > MAX_CHUNKS:
        raise WireError(f"an object in {chunk.num_chunks} chunks; at most {MAX_CHUNKS} are taken")
    if chunk.index >= chunk.num_chunks:
        raise WireError(f"chunk {chunk.index} of an object with {chunk.num_chunks} chunks")
    last = chunk.index == chunk.num_chunks - 1
    expected = chunk.total_bytes - chunk.index * chunk.chunk_bytes if last else chunk.chunk_bytes
    if len(chunk.data) != expected:
        raise WireError(f"chunk {chunk.index} holds {len(chunk.data)} bytes, {expected} were announced")
    if len(chunk.seal) not in {0, SEAL_BYTES}:
        raise WireError(f"a seal of {len(chunk.seal)} bytes")


class Assembly:
    """The chunks of one object that have arrived; memory grows with what arrived, never with what was claimed.

    Attributes:
        seal: the newest that came with one of them; whether it is good is for who takes the object to say.
    """

    def __init__(self, first: Chunk) -> None:
        self.digest = first.digest
        self.total_bytes = first.total_bytes
        self.chunk_bytes = first.chunk_bytes
        self.num_chunks = first.num_chunks
        self.seal = b""
        self._pieces: dict[int, bytes] = {}

    def fits(self, chunk: Chunk) -> bool:
        """Whether the chunk is of this object, and of this way to cut it."""
        return (chunk.digest, chunk.total_bytes, chunk.chunk_bytes) == (
            self.digest,
            self.total_bytes,
            self.chunk_bytes,
        )

    def add(self, chunk: Chunk) -> bool:
        """Takes a checked chunk; False when it was here already.

        Raises:
            WireError: when it belongs to another object, or was cut differently.
        """
        if not self.fits(chunk):
            raise WireError("a chunk of another object, or of the same cut differently")
        self.seal = chunk.seal or self.seal
        if chunk.index in self._pieces:
            return False
        self._pieces[chunk.index] = chunk.data
        return True

    @property
    def missing(self) -> int:
        """How many chunks are still to come."""
        return self.num_chunks - len(self._pieces)

    def missing_from(self, at_most: int) -> list[int]:
        """The first indices that are still to come, `at_most` of them."""
        return list(
            itertools.islice((index for index in range(self.num_chunks) if index not in self._pieces), at_most)
        )

    def whole(self) -> bytes:
        """The object.

        Raises:
            WireError: when chunks are missing, or what came together has another digest.
        """
        return self.whole_with_digest()[0]

    def whole_with_digest(self) -> tuple[bytes, str]:
        """The object and its digest in full, which is what was checked.

        Raises:
            WireError: as `whole`.
        """
        if self.missing:
            raise WireError(f"{self.missing} of {self.num_chunks} chunks are missing")
        data = b"".join(self._pieces[index] for index in range(self.num_chunks))
        digest = object_digest(data)
        if short(digest) != self.digest:
            raise WireError("the assembled object does not have the digest that its chunks bear")
        return data, digest


class Taken(msgspec.Struct, frozen=True):
    """What a chunk did among the assemblies.

    Attributes:
        fresh: it had not come before.
        whole: the object that it completed.
        digest: of that, in hex.
        seal: that came with it; not looked at yet.
        spoiled: why the object that it completed is damaged.
        over: names of assemblies that ended with it: complete, damaged, or given up for a newer one.
    """

    fresh: bool
    whole: bytes | None = None
    digest: str = ""
    spoiled: str = ""
    seal: bytes = b""
    over: tuple[bytes, ...] = ()


class Assemblies:
    """The objects that one sender has under way, at most `max_open` of at most `max_bytes` each."""

    def __init__(self, max_bytes: int, max_open: int) -> None:
        self._max_bytes, self._max_open = max_bytes, max_open
        self._open: collections.OrderedDict[bytes, Assembly] = collections.OrderedDict()

    def hand_over(self, digest: bytes) -> Assembly | None:
        """What has come of the object with this short digest, for somebody else to go on with."""
        return self._open.pop(digest, None)

    def take(self, chunk: Chunk) -> Taken:
        """Adds a chunk; the oldest assembly makes way for a new one when there are too many.

        A sender that begins anew may cut the same object differently, since the broker's limit may have changed: what
        came of the former cut is given up.

        Raises:
            WireError: when the chunk cannot be what it claims.
        """
        check_chunk(chunk, self._max_bytes)
        over = []
        present = self._open.get(chunk.digest)
        if present is not None and not present.fits(chunk):
            over.append(self._open.pop(chunk.digest).digest)
        if chunk.digest not in self._open:
            if len(self._open) == self._max_open:
                over.append(self._open.popitem(last=False)[0])
            self._open[chunk.digest] = Assembly(chunk)
        assembly = self._open[chunk.digest]
        fresh = assembly.add(chunk)
        if assembly.missing:
            return Taken(fresh, over=tuple(over))
        del self._open[chunk.digest]
        over.append(chunk.digest)
        try:
            return Taken(fresh, *assembly.whole_with_digest(), seal=assembly.seal, over=tuple(over))
        except WireError as error:
            return Taken(fresh, spoiled=error.reason, over=tuple(over))
