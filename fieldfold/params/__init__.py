"""Flat float32 parameter vectors and their named layout."""

from fieldfold.params.layout import Layout, TensorSpec
from fieldfold.params.vector import (
    Vector,
    as_vector,
    clip_norm,
    digest,
    from_bytes,
    is_finite,
    norm,
    to_bytes,
    view_bytes,
)

__all__ = [
    "Layout",
    "TensorSpec",
    "Vector",
    "as_vector",
    "clip_norm",
    "digest",
    "from_bytes",
    "is_finite",
    "norm",
    "to_bytes",
    "view_bytes",
]
