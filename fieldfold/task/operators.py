"""The torch operators that a program may name: what a training step needs, and nothing that reaches beyond it.

None of them reads or writes a file, draws random numbers, leaves memory uninitialised (`empty`), addresses memory
directly (`as_strided`, `set_`), or trusts an index without looking (`max_pool2d_with_indices_backward` on a CPU).
When a bundle is built, what is not here is broken down into what is; a program that names it is refused.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

IDENTITIES = frozenset({"aten.alias.default", "aten.detach.default"})
"""They matter to autograd only, and are left out of programs."""

_ON_SIZES: tuple[Callable[..., Any], ...] = (
    operator.add, operator.sub, operator.mul, operator.floordiv, operator.mod, operator.truediv, operator.neg,
    operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge,
    operator.and_, operator.or_, operator.not_, math.floor, math.ceil, max, min, int, float,
)  # fmt: skip

SYMBOLIC: Mapping[str, Callable[..., Any]] = {
    f"sym.{function.__name__.strip('_')}": function for function in _ON_SIZES
}
"""Arithmetic on sizes. `sym.getitem`, the choice of one of an operator's several results, is beside it."""

ITEM = "sym.getitem"

RECURRENT = frozenset(
    f"recurrent.{name}" for name in ("lstm", "lstm_backward", "gru", "gru_backward", "plain", "plain_backward")
)
"""Our own: all steps of a recurrent layer in one direction, see torch_recurrent.py."""

_ALONE = """
_adaptive_avg_pool2d _adaptive_avg_pool2d_backward _cdist_forward _log_softmax _log_softmax_backward_data
_native_batch_norm_legit _native_batch_norm_legit_functional _native_batch_norm_legit_no_training _softmax
_softmax_backward_data _to_copy
abs acos acosh addmm amax amin arange argmax argmin asin asinh atan atan2 atanh avg_pool2d avg_pool2d_backward
avg_pool3d bitwise_not bmm cat ceil clamp clamp_max clamp_min clone constant_pad_nd convolution convolution_backward
copy cos cosh cumsum diagonal elu elu_backward embedding erf erfc exp expand expm1 flip floor full full_like gather
gelu gelu_backward grid_sampler_2d hardsigmoid hardsigmoid_backward hardswish hardswish_backward hardtanh
hardtanh_backward index_put index_select isinf isnan leaky_relu leaky_relu_backward linalg_vector_norm log log10
log1p log2 logcumsumexp logical_and logical_not logical_or logical_xor masked_scatter max max_pool2d_with_indices
max_pool3d_with_indices maximum mean min minimum mish mish_backward mm native_batch_norm_backward native_group_norm
native_group_norm_backward native_layer_norm native_layer_norm_backward neg new_full new_ones new_zeros ones_like
permute prod reciprocal reflection_pad1d reflection_pad2d reflection_pad3d relu repeat replication_pad2d
replication_pad3d round rsqrt scalar_tensor scatter_add select_backward select_scatter sigmoid sigmoid_backward sign
silu silu_backward sin sinh slice_backward slice_scatter softplus softplus_backward sort split_with_sizes sqrt
square squeeze stack sum sym_numel t tan tanh tanh_backward threshold_backward topk tril triu trunc unfold unsqueeze
var view where zeros zeros_like
clamp_ copy_ hardtanh_ leaky_relu_ neg_ relu_ sigmoid_ silu_ tanh_ zero_
"""

_OVERLOADED = {
    "_native_batch_norm_legit": "no_stats",
    "add": "Tensor Scalar",
    "add_": "Tensor Scalar",
    "any": "default dim dims",
    "all": "default dim dims",
    "arange": "start start_step",
    "bitwise_and": "Tensor Scalar",
    "bitwise_or": "Tensor Scalar",
    "bitwise_xor": "Tensor Scalar",
    "bitwise_left_shift": "Tensor Tensor_Scalar",
    "bitwise_right_shift": "Tensor Tensor_Scalar",
    "bucketize": "Tensor",
    "clamp": "Tensor",
    "clamp_max": "Tensor",
    "clamp_min": "Tensor",
    "cumsum": "default",
    "div": "Tensor Scalar Tensor_mode Scalar_mode",
    "div_": "Tensor Scalar",
    "eq": "Tensor Scalar",
    "fill": "Scalar Tensor",
    "fill_": "Scalar Tensor",
    "fmod": "Tensor Scalar",
    "ge": "Tensor Scalar",
    "gt": "Tensor Scalar",
    "index": "Tensor",
    "le": "Tensor Scalar",
    "logsumexp": "default",
    "lt": "Tensor Scalar",
    "masked_fill": "Scalar Tensor",
    "masked_fill_": "Scalar Tensor",
    "max": "dim",
    "mean": "dim",
    "min": "dim",
    "mul": "Tensor Scalar",
    "mul_": "Tensor Scalar",
    "ne": "Tensor Scalar",
    "pow": "Scalar Tensor_Scalar Tensor_Tensor",
    "prod": "dim_int",
    "remainder": "Tensor Scalar",
    "rsub": "Scalar Tensor",
    "scatter": "src value",
    "scatter_reduce": "two",
    "select": "int",
    "slice": "Tensor",
    "split": "Tensor",
    "squeeze": "dim dims",
    "sub": "Tensor Scalar",
    "sub_": "Tensor Scalar",
    "sum": "dim_IntList",
    "sym_size": "int",
    "transpose": "int",
    "unbind": "int",
    "upsample_bilinear2d": "vec",
    "upsample_nearest1d": "default vec",
    "upsample_nearest1d_backward": "default",
    "upsample_nearest2d": "default vec",
    "upsample_nearest2d_backward": "default",
    "var": "correction dim",
    "where": "self ScalarSelf ScalarOther",
    "xlogy": "Tensor",
}

OPERATORS = frozenset(
    [f"aten.{name}.default" for name in _ALONE.split()]
    + [f"aten.{name}.{overload}" for name, overloads in _OVERLOADED.items() for overload in overloads.split()]
)
