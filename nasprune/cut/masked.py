"""Operations over kept channels only: what each operation of the reference does where some of its channels are dropped.

A handler gets the operation's node and its arguments by schema name. It returns the result, or `None` where nothing
that it mixes is dropped, and the plain operation serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from nasprune.cut.lengths import left_of
from nasprune.graph.contractions import PRODUCTS, contraction
from nasprune.graph.model import Bools, ModelGraph
from nasprune.graph.program import arguments, operator, shape_of

Args = Mapping[str, Any]


class Masks:
    """Where a value or a parameter keeps its channels, as tensors of ones and zeros."""

    def __init__(self, graph: ModelGraph, keep: Bools, dtype: torch.dtype, device: torch.device) -> None:
        self._graph = graph
        self._keep = keep
        self._dtype = dtype
        self._device = device

    def of(self, node: Any, cuts: Sequence[int] | range) -> Tensor | None:
        """Broadcastable mask of the units of `node` that end on one of the `cuts` axes; `None` if all stay."""
        mask = None
        for factor in self._graph.values.get(node.name, ()) if isinstance(node, Node) else ():
            kept = self._keep[factor.units]
            if factor.cut in cuts and not kept.all():
                own = self._tensor(kept)
                mask = own if mask is None else mask * own
        return mask

    def of_weight(self, node: Node) -> Tensor | None:
        """Mask of all axes of a weight, a parameter or what the code makes of one."""
        name = self._graph.program.params.get(node.name)
        shape = shape_of(node) or ()
        if name is None:
            return self.of(node, range(len(shape)))
        mask = None
        for axis in self._graph.params.get(name, ()):
            positions = axis.positions(self._keep)
            if positions.all():
                continue
            layout = [1] * len(shape)
            layout[axis.axis] = shape[axis.axis]
            if len(positions) > 1:
                layout[0] = shape[0]
                positions = positions.repeat(shape[0] // len(positions), axis=0)
            own = self._tensor(positions.reshape(layout))
            mask = own if mask is None else mask * own
        return mask

    def _tensor(self, kept: Bools) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(kept)).to(self._device, self._dtype)


Handler = Callable[[Masks, Node, Args], Any]


def _run(node: Node, args: Args, **changed: Any) -> Any:
    """The node's operation with some of its arguments changed."""
    given = {**args, **changed}
    target = cast(Any, node.target)
    schema = target._schema.arguments
    positional = [given[argument.name] for argument in schema if not argument.kwarg_only]
    return target(*positional, **{argument.name: given[argument.name] for argument in schema if argument.kwarg_only})


def _weighted(masks: Masks, node: Node, args: Args) -> Any:
    """Convolutions and linear layers: the weights of dropped channels are zero."""
    mask = masks.of_weight(arguments(node)["weight"])
    return None if mask is None else _run(node, args, weight=args["weight"] * mask)


def _product(masks: Masks, node: Node, args: Args) -> Any:
    """Matrix products: what is summed over loses the dropped channels."""
    formula = contraction(node)
    if formula is None:
        return None
    found = {term.node: masks.of(term.node, formula.summed(term)) for term in formula.terms}
    if all(mask is None for mask in found.values()):
        return None

    def masked(given: Any, value: Any) -> Any:
        if isinstance(given, list | tuple):
            return [masked(*pair) for pair in zip(given, value, strict=True)]
        mask = found.get(given) if isinstance(given, Node) and given is not formula.added else None
        return value if mask is None else value * mask

    given = arguments(node)
    return _run(node, {name: masked(given[name], value) for name, value in args.items()})


def _attention(masks: Masks, node: Node, args: Args) -> Any:
    """Queries and keys lose dropped features; the default scale counts those that stay."""
    query = arguments(node)["query"]
    mask = masks.of(query, [len(shape_of(query) or ()) - 1])
    if mask is None:
        return None
    scale = args["scale"] if args["scale"] is not None else int(mask.sum(-1).reshape(-1)[0]) ** -0.5
    return _run(node, args, query=args["query"] * mask, scale=scale)


def _recurrent(masks: Masks, node: Node, args: Args) -> Any:
    """LSTM, GRU, RNN: the columns of dropped features and hidden units are zero."""
    found = [masks.of_weight(one) for one in arguments(node).get("params") or ()]
    if all(mask is None for mask in found):
        return None
    params = [value if mask is None else value * mask for value, mask in zip(args["params"], found, strict=True)]
    return _run(node, args, params=params)


def _cell(masks: Masks, node: Node, args: Args) -> Any:
    """One step of an LSTM, GRU or RNN."""
    found = {name: masks.of_weight(arguments(node)[name]) for name in ("w_ih", "w_hh")}
    if all(mask is None for mask in found.values()):
        return None
    return _run(node, args, **{name: args[name] if mask is None else args[name] * mask for name, mask in found.items()})


def _weight_norm(masks: Masks, node: Node, args: Args) -> Any:
    """The lengths of the dense weight, rounded as `build` rounds the lengths of what stays."""
    dim, given = int(args["dim"]), arguments(node)
    mask = masks.of(given["v"], [axis for axis in range(args["v"].ndim) if axis != dim])
    if mask is None:
        return None
    rounded = cast(Tensor, given["g"].meta["val"]).dtype
    share = left_of(args["v"] * mask, args["v"], dim).reshape(args["g"].shape)
    coarse = args["v"].to(rounded)
    coarse_share = left_of(coarse * mask.to(rounded), coarse, dim).reshape(args["g"].shape)
    kept = (args["g"].to(rounded) * coarse_share).to(args["g"].dtype)
    return _run(node, args, g=kept / share)


def _layer_norm(masks: Masks, node: Node, args: Args) -> Any:
    ndim = len(shape_of(node) or ())
    axes = list(range(ndim - len(args["normalized_shape"]), ndim))
    mask = masks.of(node.all_input_nodes[0], axes)
    return None if mask is None else _normalised(args, mask, axes, centred=operator(node) != "rms_norm", vector=False)


def _group_norm(masks: Masks, node: Node, args: Args) -> Any:
    """With several groups, whole groups go, and the others are as they were."""
    axes = list(range(1, len(shape_of(node) or ())))
    mask = masks.of(node.all_input_nodes[0], axes) if args["num_groups"] == 1 else None
    return None if mask is None else _normalised(args, mask, axes, centred=True, vector=True)


def _batch_norm(masks: Masks, node: Node, args: Args) -> Any:
    axes = [axis for axis in range(len(shape_of(node) or ())) if axis != 1]
    mask = masks.of(node.all_input_nodes[0], axes) if args["training"] else None
    return None if mask is None else _normalised(args, mask, axes, centred=True, vector=True)


def _normalised(args: Args, mask: Tensor, axes: list[int], *, centred: bool, vector: bool) -> Tensor:
    """A normalisation whose statistics count only where `mask` is 1; masked places come out as zero.

    vector: whether weight and bias run along axis 1 (batch and group norm) or along the last axes (layer norm).
    """
    x: Tensor = args["input"]
    full = mask.expand(x.shape)
    mean, variance = _moments(x, full, axes, centred=centred)
    eps = args.get("eps")
    y = (x - mean) * (variance + (torch.finfo(x.dtype).eps if eps is None else eps)).rsqrt()
    shape = [1, -1] + [1] * (x.ndim - 2)
    for name, combine in (("weight", torch.mul), ("bias", torch.add)):
        value = args.get(name)
        if value is not None:
            y = combine(y, value.reshape(shape) if vector else value)
    return y * full


def _moments(x: Tensor, full: Tensor, axes: Sequence[int], *, centred: bool = True) -> tuple[Tensor, Tensor]:
    """Mean (zero if not centred) and mean squared distance from it over the places where `full` is 1."""
    count = full.sum(list(axes), keepdim=True)
    mean = (x * full).sum(list(axes), keepdim=True) / count if centred else x.new_zeros(())
    return mean, ((x - mean).square() * full).sum(list(axes), keepdim=True) / count


def _reduction(masks: Masks, node: Node, args: Args) -> Any:
    """Sums, means, extremes and norms over the kept channels: dropped ones hold what changes nothing."""
    name = operator(node)
    x: Tensor = args["self"]
    dims = args.get("dim")
    axes = list(range(x.ndim)) if dims in (None, []) else [dim % x.ndim for dim in _listed(dims)]
    mask = masks.of(node.all_input_nodes[0], axes)
    if mask is None:
        return None
    full = mask.expand(x.shape)
    if name in MOMENTS:
        return _moment(name, x, full, axes, args)
    return _run(node, args, self=x.masked_fill(full == 0, NEUTRAL.get(name, 0)))


def _similarity(masks: Masks, node: Node, args: Args) -> Any:
    """The cosine over the kept channels."""
    given = arguments(node)
    found = {
        name: masks.of(given[name], [int(args["dim"]) % args[name].ndim])
        for name in ("x1", "x2")
        if isinstance(given[name], Node)
    }
    if all(mask is None for mask in found.values()):
        return None
    return _run(node, args, **{name: args[name] if mask is None else args[name] * mask for name, mask in found.items()})


def _distances(masks: Masks, node: Node, args: Args) -> Any:
    """Distances of rows over the kept features."""
    given = arguments(node)
    found = [masks.of(given[name], [args[name].ndim - 1]) for name in ("x1", "x2")]
    if all(mask is None for mask in found):
        return None
    one, other = (
        args[name] if mask is None else args[name] * mask for name, mask in zip(("x1", "x2"), found, strict=True)
    )
    if operator(node) == "cdist":
        return _run(node, args, x1=one, x2=other)
    kept = next(mask for mask in found if mask is not None)
    return torch.linalg.vector_norm((one - other + args["eps"]) * kept, args["p"], -1, args["keepdim"])


def _moment(name: str, x: Tensor, full: Tensor, axes: list[int], args: Args) -> Any:
    """Mean, variance and standard deviation, the latter two with their mean where asked for."""
    mean, spread = _moments(x, full, axes)
    if name != "mean":
        count = full.sum(axes, keepdim=True)
        correction = args.get("correction", float(args.get("unbiased", True)))
        spread = spread * count / (count - (1.0 if correction is None else float(correction))).clamp(min=0)
        spread = spread.sqrt() if name.startswith("std") else spread
    results = [value if args.get("keepdim", False) else value.squeeze(axes) for value in (spread, mean)]
    return results[1] if name == "mean" else tuple(results) if name.endswith("_mean") else results[0]


def _listed(dims: Any) -> list[int]:
    return [int(dim) for dim in (dims if isinstance(dims, list | tuple) else [dims])]


LOWEST, HIGHEST = float("-inf"), float("inf")
MOMENTS = ("mean", "std", "std_mean", "var", "var_mean")
NEUTRAL = {
    "amax": LOWEST,
    "max": LOWEST,
    "logsumexp": LOWEST,
    "amin": HIGHEST,
    "min": HIGHEST,
    "prod": 1.0,
    "all": 1.0,
}
REDUCTIONS = (*MOMENTS, *NEUTRAL, "any", "frobenius_norm", "linalg_norm", "linalg_vector_norm", "norm", "sum")

MASKED: dict[str, Handler] = {
    "conv": _weighted,
    "linear": _weighted,
    "deform_conv2d": _weighted,
    **dict.fromkeys(PRODUCTS, _product),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("lstm", "gru", "rnn_tanh", "rnn_relu"), _recurrent),
    **dict.fromkeys(("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"), _cell),
    "_weight_norm": _weight_norm,
    "_weight_norm_interface": _weight_norm,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
    "group_norm": _group_norm,
    "batch_norm": _batch_norm,
    **dict.fromkeys(REDUCTIONS, _reduction),
    "cosine_similarity": _similarity,
    **dict.fromkeys(("cdist", "pairwise_distance"), _distances),
}
