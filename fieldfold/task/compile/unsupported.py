"""The error for what has no place in a bundle."""

from __future__ import annotations

from fieldfold.errors import CompileError


class UnsupportedError(CompileError):
    """An operation that a bundle cannot hold; whoever catches it adds where in the model it stands."""
