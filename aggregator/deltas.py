"""Decoded updates between their verification and their fold, so that each is decoded once and not twice.

What is not here is decoded again, with the same result: a replay never finds anything here.
"""

from __future__ import annotations

import collections

from fieldfold.codec import Delta, decode_delta

MOST_VECTORS = 4
"""Beyond the size of so many float32 vectors of the model the oldest make way. At the default profile thirty fit,
which is more than a buffer; of uncompressed ones four."""

_waiting: collections.OrderedDict[tuple[bytes, int], Delta] = collections.OrderedDict()


def remember(payload: bytes, num_params: int) -> Delta:
    """Decodes a payload that is likely to be folded soon.

    Raises:
        CodecError: as `decode`.
    """
    delta = decode_delta(payload, num_params)
    _waiting[payload, num_params] = delta
    most_bytes = MOST_VECTORS * 4 * num_params
    size_bytes = sum(each.size_bytes for each in _waiting.values())
    while size_bytes > most_bytes:
        _, oldest = _waiting.popitem(last=False)
        size_bytes -= oldest.size_bytes
    return delta


def recall(payload: bytes, num_params: int) -> Delta:
    """The same for its last use.

    Raises:
        CodecError: as `decode`.
    """
    return _waiting.pop((payload, num_params), None) or decode_delta(payload, num_params)
