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

_waiting: collections.OrderedDict[tuple[bytes, int], tuple[bytes, Delta]] = collections.OrderedDict()


def remember(payload: bytes, num_params: int) -> Delta:
    """Decodes a payload that is likely to be folded soon.

    Raises:
        CodecError: as `decode`.
    """
    delta = decode_delta(payload, num_params)
    _waiting[_place(payload, num_params)] = payload, delta
    most_bytes = MOST_VECTORS * 4 * num_params
    size_bytes = sum(each.size_bytes for _, each in _waiting.values())
    while size_bytes > most_bytes:
        _, (_, oldest) = _waiting.popitem(last=False)
        size_bytes -= oldest.size_bytes
    return delta


def recall(payload: bytes, num_params: int) -> Delta:
    """The same for its last use.

    Raises:
        CodecError: as `decode`.
    """
    remembered, delta = _waiting.pop(_place(payload, num_params), (b"", None))
    return delta if delta is not None and remembered == payload else decode_delta(payload, num_params)


def _place(payload: bytes, num_params: int) -> tuple[bytes, int]:
    """Where it is looked for; two that share it are told apart by all their bytes, faster than by a hash of these."""
    return payload[-_TAIL_BYTES:], num_params
