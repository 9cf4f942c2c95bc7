"""The questions a client update must answer before it may move the model."""

from __future__ import annotations

import math
from typing import Annotated, TypeAlias

import msgspec

from aggregator.deltas import remember
from fieldfold.errors import CodecError
from fieldfold.wire.messages import ClientUpdate, RejectionCode

MAX_NORM = 1e12
"""Longest delta whatever is usual: however many are added, the model stays a long way from the end of float32."""


class VerifyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The `[verify]` table.

    Attributes:
        max_staleness: updates against a version older than this many are refused.
        max_num_examples: a node that claims more is refused.
        max_per_minute: updates that a node may send; those beyond are deferred. 0 for no limit.
        max_norm: longest delta, as a multiple of the median of the recent ones (and at least of 1.0).
    """

    max_staleness: Annotated[int, msgspec.Meta(ge=0)] = 1000
    max_num_examples: Annotated[int, msgspec.Meta(ge=1)] = 1_000_000_000
    max_per_minute: Annotated[float, msgspec.Meta(ge=0)] = 1200.0
    max_norm: Annotated[float, msgspec.Meta(gt=0)] = 100.0


class Accepted(msgspec.Struct, frozen=True):
    """The update may be folded. `norm` is that of its decoded delta."""

    staleness: int
    norm: float


class Rejected(msgspec.Struct, frozen=True):
    """The update is refused; all of it goes into the receipt."""

    reason: str
    hint: str = ""
    code: RejectionCode = "invalid"


Verdict: TypeAlias = Accepted | Rejected


class Expectation(msgspec.Struct, frozen=True):
    """What the federation is at when an update arrives.

    Attributes:
        run: the present model's run.
        num_params: length of the parameter vector.
        num_classes: how many classes of the task are scored apart.
        version: the newest model version.
        max_staleness: the method's own limit, where it has one.
        typical_norm: median norm of the recent deltas; None before the first.
    """

    run: bytes
    num_params: int
    num_classes: int
    version: int
    max_staleness: int | None = None
    typical_norm: float | None = None


def verify(update: ClientUpdate, sender: str, expected: Expectation, limits: VerifyConfig) -> Verdict:
    """Checks an update that `sender` (the name in the topic) sent."""
    return (
        _check_claims(update, sender, expected, limits)
        or _check_base(update, expected, limits)
        or _check_delta(update, expected, limits)
    )


def _check_claims(update: ClientUpdate, sender: str, expected: Expectation, limits: VerifyConfig) -> Rejected | None:
    if update.node != sender:
        return Rejected(f"the update says it is from {update.node}, but {sender} sent it")
    if update.run != expected.run:
        return Rejected(
            f"trained in run {update.run.hex()}, the federation is in {expected.run.hex()}",
            "the node takes the present task and model by itself",
            "other_run",
        )
    if not 1 <= update.num_examples <= limits.max_num_examples:
        return Rejected(
            f"num_examples is {update.num_examples}, 1 to {limits.max_num_examples} are allowed",
            "raise verify.max_num_examples if the node really has so many",
        )
    if update.num_steps < 1:
        return Rejected("num_steps is 0: nothing was trained")
    return _check_numbers(update) or _check_classes(update, expected.num_classes)


def _check_numbers(update: ClientUpdate) -> Rejected | None:
    if not all(map(math.isfinite, (update.train_loss, update.base_score[0], update.base_loss))):
        what = "train_loss, base_score or base_loss"
        return Rejected(f"{what} is not finite", "look at the node's data and learning rate")
    if not (math.isfinite(update.trained_norm) and update.trained_norm >= 0):
        return Rejected(f"trained_norm is {update.trained_norm}, which is no delta's")
    return None


def _check_classes(update: ClientUpdate, num_classes: int) -> Rejected | None:
    told = update.class_scores
    if told and len(told) != num_classes:
        return Rejected(f"class_scores tells of {len(told)} classes, {num_classes} of the task are scored apart")
    if not all(math.isfinite(score) for score, _ in told):
        return Rejected("class_scores is not finite", "look at the node's data and learning rate")
    return None


def _check_base(update: ClientUpdate, expected: Expectation, limits: VerifyConfig) -> Rejected | None:
    staleness = expected.version - update.base_version
    if staleness < 0:
        return Rejected(
            f"unknown base version {update.base_version}, the newest is {expected.version}",
            "the aggregator's ledger is older than the node's model, as after a restored backup; the node goes back",
            "ahead",
        )
    allowed = min(limits.max_staleness, expected.version)
    if expected.max_staleness is not None:
        allowed = min(allowed, expected.max_staleness)
    if staleness > allowed:
        return Rejected(
            f"too stale: against version {update.base_version}, {staleness} versions ago, {allowed} are allowed",
            "the node goes on from the newest version",
            "stale",
        )
    return None


def _check_delta(update: ClientUpdate, expected: Expectation, limits: VerifyConfig) -> Verdict:
    try:
        length = remember(update.payload, expected.num_params).norm()
    except CodecError as error:
        return Rejected(f"the delta does not decode: {error.reason}")
    if not math.isfinite(length):
        return Rejected("the delta holds NaN or infinity")
    longest = min(MAX_NORM, limits.max_norm * max(1.0, expected.typical_norm or 0.0))
    if length > longest:
        return Rejected(f"the delta's norm is {length:.3g}, at most {longest:.3g} is allowed", "see verify.max_norm")
    return Accepted(expected.version - update.base_version, length)
