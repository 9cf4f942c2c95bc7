"""Decoded updates between their verification and their fold, so that each is decoded once and not twice.

What is not here is decoded again, with the same result: a replay never finds anything here.
"""

from __future__ import annotations

import collections

from fieldfold.codec import Delta, decode_delta

MOST_VECTORS = 4
"""Beyond the size of so many float32 vectors of the model the oldest make way. At the default profile thirty fit,
which is more than a buffer; of uncompressed ones four."""
_TAIL_BYTES = 32
MOST_SLOT_BYTES = 64 << 20
"""Decoded slots that are kept; those are used in every step."""


class _Waiting:
    """What was remembered, the oldest first, and its size."""

    def __init__(self) -> None:
        self._found: collections.OrderedDict[tuple[bytes, int], tuple[bytes, Delta, int]] = collections.OrderedDict()
        self.size_bytes = 0

    def put(self, payload: bytes, num_params: int, delta: Delta, most_bytes: int) -> None:
        self.take(payload, num_params)
        self._found[_place(payload, num_params)] = payload, delta, delta.size_bytes
        self.size_bytes += delta.size_bytes
        while self.size_bytes > most_bytes:
            self.size_bytes -= self._found.popitem(last=False)[1][2]

    def take(self, payload: bytes, num_params: int) -> Delta | None:
        remembered, delta, size_bytes = self._found.pop(_place(payload, num_params), (b"", None, 0))
        self.size_bytes -= size_bytes
        return delta if remembered == payload else None


_waiting, _in_slots = _Waiting(), _Waiting()


def remember(payload: bytes, num_params: int) -> Delta:
    """Decodes a payload that is likely to be folded soon.

    Raises:
        CodecError: as `decode`.
    """
    delta = decode_delta(payload, num_params)
    _waiting.put(payload, num_params, delta, MOST_VECTORS * 4 * num_params)
    return delta


def recall(payload: bytes, num_params: int) -> Delta:
    """The same for its last use.

    Raises:
        CodecError: as `decode`.
    """
    return _waiting.take(payload, num_params) or decode_delta(payload, num_params)


def look_up(payload: bytes, num_params: int) -> Delta:
    """The same for one use of many: those that were used last are kept.

    Raises:
        CodecError: as `decode`.
    """
    delta = _in_slots.take(payload, num_params) or recall(payload, num_params)
    _in_slots.put(payload, num_params, delta, MOST_SLOT_BYTES)
    return delta


def _place(payload: bytes, num_params: int) -> tuple[bytes, int]:
    """Where it is looked for; two that share it are told apart by all their bytes, faster than by a hash of these."""
    return payload[-_TAIL_BYTES:], num_params
