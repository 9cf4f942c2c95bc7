"""Decoded updates between their verification and their fold, so that each is decoded once and not twice.

What is not here is decoded again, with the same result: a replay never finds anything here.
"""

from __future__ import annotations

import collections

from fieldfold.codec import Delta, decode_delta

MOST = 64
MOST_BYTES = 64 << 20
"""Beyond either the oldest make way: about a buffer's worth, so that memory does not depend on who sends what."""

_waiting: collections.OrderedDict[tuple[bytes, int], Delta] = collections.OrderedDict()


def remember(payload: bytes, num_params: int) -> Delta:
    """Decodes a payload that is likely to be folded soon.

    Raises:
        CodecError: as `decode`.
    """
    delta = decode_delta(payload, num_params)
    _waiting[payload, num_params] = delta
    size_bytes = sum(each.size_bytes for each in _waiting.values())
    while len(_waiting) > MOST or size_bytes > MOST_BYTES:
        _, oldest = _waiting.popitem(last=False)
        size_bytes -= oldest.size_bytes
    return delta


def recall(payload: bytes, num_params: int) -> Delta:
    """The same for its last use.

    Raises:
        CodecError: as `decode`.
    """
    return _waiting.pop((payload, num_params), None) or decode_delta(payload, num_params)
