"""Operators that count nothing by convention, by kind: told by torch's own tags and schemas, the others by name."""

from __future__ import annotations

import torch
from torch.fx import Node

from nasprune.cost.formulas import FORMULAS, NAMESPACES
from nasprune.graph.program import operator

ELEMENTWISE = "element-wise"
REDUCTIONS = "norms and sums"
POOLING = "pooling and resampling"
MOVES = "moving data"

_BY_TAG = {torch.Tag.pointwise: ELEMENTWISE, torch.Tag.reduction: REDUCTIONS}
_BY_NAME = {
    ELEMENTWISE: (
        "addr alpha_dropout complex cross dropout feature_alpha_dropout feature_dropout glu hardswish kron "
        "linalg_cross log_sigmoid native_dropout outer polar prelu rrelu"
    ),
    REDUCTIONS: (
        "cosine_similarity cummax cummin cumprod cumsum diff dist kthvalue linalg_norm log_softmax logcumsumexp median "
        "mode norm_except_dim pairwise_distance renorm rms_norm softmax trace _weight_norm _weight_norm_interface"
    ),
    POOLING: "affine_grid_generator channel_shuffle col2im im2col pixel_shuffle pixel_unshuffle",
    MOVES: (
        "argsort bernoulli bincount block_diag broadcast_tensors bucketize cat cauchy concat constant_pad_nd "
        "copy diag diag_embed embedding exponential fft_fftshift fft_ifftshift fill flip gather geometric histc "
        "hstack index item lift masked_scatter masked_select meshgrid multinomial narrow_copy nonzero normal "
        "one_hot pad put repeat repeat_interleave roll rot90 searchsorted select_scatter slice_scatter sort "
        "stack take take_along_dim tile topk tril triu type_as vstack zero"
    ),
}
_KIND = {name: kind for kind, names in _BY_NAME.items() for name in names.split()}
_BEGINNINGS = {
    "adaptive_": POOLING,
    "avg_pool": POOLING,
    "fractional_max_pool": POOLING,
    "max_pool": POOLING,
    "max_unpool": POOLING,
    "upsample_": POOLING,
    "index_": MOVES,
    "new_": MOVES,
    "rand": MOVES,
    "reflection_pad": MOVES,
    "replication_pad": MOVES,
    "scatter": MOVES,
    "unique": MOVES,
    "assert": MOVES,
}


def has_formula(node: Node) -> bool:
    """Whether the operator's FLOPs are counted."""
    return getattr(node.target, "namespace", "") in NAMESPACES and operator(node) in FORMULAS


def kind_of(node: Node) -> str | None:
    """The kind of an operator that counts nothing by convention, or `None` where it does work that has no formula."""
    name, target = operator(node), node.target
    if not isinstance(target, torch._ops.OpOverload):
        return None if isinstance(target, torch._ops.HigherOrderOperator) else MOVES  # arithmetic on sizes
    if target.namespace != "aten":
        return None
    relatives = [target, *_overloads(name)]  # tags stand on some overloads, and seldom on those in place
    tagged = next((kind for tag, kind in _BY_TAG.items() if any(tag in each.tags for each in relatives)), None)
    beginning = next((kind for text, kind in _BEGINNINGS.items() if name.lstrip("_").startswith(text)), None)
    results = [result for each in relatives for result in each._schema.returns]
    views = any(result.alias_info is not None and not result.alias_info.is_write for result in results)
    makes = not node.all_input_nodes or name.endswith(("_copy", "_like"))
    return tagged or _KIND.get(name) or beginning or (MOVES if views or makes else None)


def _overloads(name: str) -> list[torch._ops.OpOverload]:
    packet = getattr(torch.ops.aten, name, None)
    return [getattr(packet, overload) for overload in packet.overloads()] if packet is not None else []
