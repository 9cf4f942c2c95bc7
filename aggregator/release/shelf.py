"""What stands in the broker's retained topics, so that what nobody needs any more is cleared. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from fieldfold.wire.chunks import cut


class Publication(msgspec.Struct, frozen=True):
    """A message for a retained topic; an empty one clears it."""

    topic: str
    payload: bytes


class Shelf:
    """Objects in retained chunks, each below a topic of its own, and how many chunks lie there.

    Args:
        standing: prefix -> chunks, as `most` gave them before a restart.

    Attributes:
        most: prefix -> the most chunks that may lie there; to be written down before they are published.
    """

    def __init__(self, standing: Mapping[str, int]) -> None:
        self.most = dict(standing)
        self._standing = dict(standing)

    def put(self, prefix: str, data: bytes, chunk_bytes: int, seal: bytes = b"") -> Iterator[Publication]:
        """Places an object below `prefix`, in place of what lay there."""
        chunks = list(cut(data, chunk_bytes, seal))
        before = self._standing.get(prefix, 0)
        self._standing[prefix] = len(chunks)
        self.most[prefix] = max(len(chunks), self.most.get(prefix, 0))
        for index, chunk in enumerate(chunks):
            yield Publication(f"{prefix}/{index}", chunk)
        for index in range(len(chunks), before):
            yield Publication(f"{prefix}/{index}", b"")

    def clear(self, prefix: str) -> Iterator[Publication]:
        """Takes away what lies below `prefix`."""
        self.most.pop(prefix, None)
        for index in range(self._standing.pop(prefix, 0)):
            yield Publication(f"{prefix}/{index}", b"")

    def others(self, kept: set[str]) -> list[str]:
        """The prefixes at which something lies that is not in `kept`."""
        return [prefix for prefix in self._standing if prefix not in kept]
