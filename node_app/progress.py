"""What of the learner may be shown: how far it is."""

from __future__ import annotations

import msgspec


class Progress(msgspec.Struct, frozen=True):
    """What of the learner may be shown; replaced, never changed.

    Attributes:
        rests_until: when it trains on the same version again, on the monotonic clock; 0 where nothing is set.
    """

    state: str = "starting"
    detail: str = ""
    runtime: str = ""
    device: str = ""
    runtime_reason: str = ""
    adopted_version: int | None = None
    served_version: int | None = None
    served_score: float | None = None
    served_personal: bool = False
    personal_score: float | None = None
    former_version: int | None = None
    pinned: bool = False
    global_score: float | None = None
    step: int = 0
    steps: int = 0
    loss: float | None = None
    steps_per_s: float | None = None
    last_update_bytes: int = 0
    updates: int = 0
    float32_up: int = 0
    rests_until: float = 0.0
