"""Weights that fall with staleness: s(tau) of Xie et al., "Asynchronous Federated Optimization", 2019."""

from __future__ import annotations

from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["constant", "hinge", "polynomial"]


def constant(_tau: int) -> float:
    """s(tau) = 1."""
    return 1.0


def hinge(tau: int, a: float, b: float) -> float:
    """s(tau) = 1 while tau <= b, then 1 / (a (tau - b) + 1)."""
    return 1.0 if tau <= b else 1.0 / (a * (tau - b) + 1.0)


def polynomial(tau: int, a: float) -> float:
    """s(tau) = (1 + tau)^-a."""
    return float((1.0 + tau) ** -a)
