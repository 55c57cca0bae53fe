"""What is known of torch's operators when data flows through them."""

import re
from functools import cache
from typing import Any, NamedTuple

import torch

from ..activation import at_zero, of_function

# Make a tensor like another without reading it. `empty_like` is not among them: what a kernel from outside the
# dispatcher writes into it comes from what it is like; an operator that overwrites it takes that back.
_NEW = {"zeros_like", "ones_like", "full_like", "rand_like", "randn_like", "randint_like", "new_zeros", "new_ones",
        "new_full", "new_empty", "new_empty_strided"}  # fmt: skip
_OVERWRITES = {"zero_", "fill_", "copy_", "bernoulli_", "uniform_", "normal_", "random_", "exponential_", "geometric_",
               "cauchy_", "log_normal_"}  # fmt: skip
# Batch normalisation in training writes the running statistics and does not look at them.
_UNREAD = {"running_mean", "running_var"}
# Of outputs that come from a part of the inputs only: the positions of those inputs, per output.
_PARTS = {
    "convolution_backward": ((0, 2), (0, 1), (0,)),
    "native_layer_norm_backward": (None, None, (0,)),
    "native_batch_norm_backward": (None, None, (0,)),
}
# Sums of products: what comes out is nobody's output any more, but the weights'.
_CONTRACTIONS = {"mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "matmul", "linear", "convolution",
                 "_convolution", "conv1d", "conv2d", "conv3d", "_trilinear", "embedding", "_embedding_bag",
                 "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu",
                 "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
                 "_scaled_dot_product_fused_attention_overrideable", "mkldnn_convolution",
                 "cudnn_convolution"}  # fmt: skip
# A parameter that is added or multiplied is no layer of its own there: position embeddings, class tokens, layer scale.
_ELEMENTWISE = {"add", "sub", "mul", "div", "cat", "stack", "where", "addcmul", "copy", "maximum", "minimum", "lerp"}
_MASKING = {"mul", "div", "where", "masked_fill", "index_put"}
# After these a tensor still is the output of the activation before them.
_PASSES = {"clone", "_to_copy", "_unsafe_view", "max_pool2d_with_indices", "max_pool3d_with_indices", "max_pool1d",
           "avg_pool1d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "mean", "amax",
           "adaptive_max_pool2d", "adaptive_max_pool3d", "native_dropout", "dropout", "permute", "expand", "cat",
           "constant_pad_nd", "index", "gather", "_reshape_copy", "view"}  # fmt: skip


_NAMED = re.compile(
    r"(adaptive_)?(avg|max|lp)_pool|max_unpool|fractional_max_pool|upsample|pixel_shuffle|(mean|amax|sum)$"
)


class Operator(NamedTuple):
    """How an operator treats what it is given."""

    name: str  # without overload, and without the underscore of those that work in place
    names: tuple[str, ...]  # of its arguments
    unread: frozenset[int]  # positions that do not count
    writes: frozenset[int]  # positions that are written into
    new: bool  # reads only the shape of what it is given
    overwrites: bool
    random: bool
    parts: Any  # as in _PARTS
    contraction: bool
    elementwise: bool
    masking: bool
    passes: bool
    at_zero: str  # the name of a function with f(0) != 0
    function: str  # what people call it, where it makes other values of one tensor: activations, pooling, softmax


@cache
def of(func: Any) -> Operator:
    """What is known of an operator.

    >>> of(torch.ops.aten.bernoulli_.float).random, of(torch.ops.aten.bernoulli_.float).writes
    (True, frozenset({0}))
    """
    schema = func._schema
    full = schema.name.partition("::")[2]
    name = full.rstrip("_")
    arguments = schema.arguments
    views = any(out.alias_info is not None and not out.alias_info.is_write for out in schema.returns)
    return Operator(
        name,
        tuple(argument.name for argument in arguments),
        frozenset(n for n, argument in enumerate(arguments) if argument.name in _UNREAD),
        frozenset(n for n, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write),
        full in _NEW,
        full in _OVERWRITES,
        torch.Tag.nondeterministic_seeded in func.tags,
        _PARTS.get(full),
        name in _CONTRACTIONS,
        name in _ELEMENTWISE,
        name in _MASKING,
        views or name in _PASSES,
        at_zero(name),
        _function(name),
    )


def _function(name: str) -> str:
    """The name in torch.nn.functional, or none.

    >>> _function("max_pool2d_with_indices"), _function("_softmax"), _function("mul")
    ('max_pool2d', 'softmax', '')
    """
    name = name.lstrip("_").removesuffix("_with_indices")
    known = of_function(name) or (name if _NAMED.match(name) else "")
    return {"pixel_shuffle": "pixel_shuffle", "native_layer_norm": "layer_norm"}.get(name, known)
