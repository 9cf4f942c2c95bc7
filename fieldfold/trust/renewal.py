"""Renewing a node's certificate over the broker: when it is due, and what the two sides say.

The key stays, so that nothing of this has to be believed: the broker's side signs no other key than the one that it
signed before, and the node takes no certificate but one of its own authority for its own key that ends later. The
broker between them can hold an answer back, and no more.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from fieldfold.trust.invitation import Pem

RENEW_WITHIN_S: Final = 60 * 86_400
SHARE_LEFT: Final = 1 / 3
"""Of a life shorter than 180 days, the part that is left when it is renewed."""


class RenewalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What a node asks on `node/N/renewal`; `expires_s`: when the certificate that it has ends."""

    format: Literal[1] = 1
    expires_s: Annotated[int, msgspec.Meta(ge=0, lt=1 << 40)]


class RenewalAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What it gets on `node/N/certificate`: the newest certificate for its key."""

    format: Literal[1] = 1
    certificate: Pem


def is_due(begins_s: float, expires_s: float, now_s: float) -> bool:
    """Whether a certificate is to be renewed: 60 days before it ends, or a third of its life.

    Args:
        begins_s: since when it is good, in seconds since the epoch.
        expires_s: when it ends, likewise.
        now_s: by the clock of whoever asks.
    """
    return expires_s - now_s < min(RENEW_WITHIN_S, SHARE_LEFT * (expires_s - begins_s))
