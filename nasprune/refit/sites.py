"""Which layers of a cut network are refitted, and which batch norms stand behind those that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nasprune.calibration.layers import is_layer
from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import Program, arguments, operator, shape_of

PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Site:
    """A layer to refit. norm: path of the batch norm behind it. block: the block whose branch it ends.

    made, read: which of the dense layer's output and input channels stay, boolean; `None` is all. node: its operation
    in the dense program. depthwise: whether the dense layer is a depthwise convolution.
    """

    path: str
    node: Node
    norm: str | None
    block: str | None
    made: Tensor | None
    read: Tensor | None
    depthwise: bool

    @property
    def reads_all(self) -> bool:
        return self.read is None or bool(self.read.all())


def sites(part: nn.Module, graph: ModelGraph, plan: PrunePlan) -> list[Site]:
    """The layers that stay and run once, in execution order."""
    modules, program = dict(part.named_modules()), graph.program
    keep = graph.unit_mask(plan.keep)
    gone = tuple(f"{name}." for name in plan.drop)
    ends = {b.branches[0]: b.name for b in graph.blocks if len(b.branches) == 1 and b.name not in plan.drop}
    weights: dict[int, int] = {}
    for module in modules.values():
        if is_layer(module):
            weights[id(module.weight)] = weights.get(id(module.weight), 0) + 1
    found: dict[str, Site] = {}
    repeated: set[str] = set()
    for node in program.live:
        path, _, again = program.owner(node).partition("@")
        module = modules.get(path)
        if module is None or not is_layer(module) or path.startswith(gone or "\0") or not runs(node, path, program):
            continue
        if again or path in found or weights[id(module.weight)] > 1:
            repeated.add(path)
        norm = _norm_behind(node, modules, graph)
        last = next(iter(node.users)) if norm else node
        axes = {a.axis: torch.from_numpy(a.positions(keep).reshape(-1)) for a in graph.params.get(f"{path}.weight", ())}
        made, read = (axes.get(1), axes.get(0)) if getattr(module, "transposed", False) else (axes.get(0), axes.get(1))
        if is_depthwise(module):
            made = axes.get(0)
            read = made.reshape(module.in_channels, -1)[:, 0] if made is not None else None
        found[path] = Site(path, node, norm, ends.get(last.name), made, read, is_depthwise(module))
    return [site for path, site in found.items() if path not in repeated]


def is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels


def runs(node: Node, path: str, program: Program) -> bool:
    """Whether the operation multiplies with the layer's weight; what only pads the input does not."""
    weight = arguments(node).get("weight")
    return isinstance(weight, Node) and program.params.get(weight.name) == f"{path}.weight"


def _norm_behind(node: Node, modules: Mapping[str, nn.Module], graph: ModelGraph) -> str | None:
    users = list(node.users)
    if len(users) != 1 or operator(users[0]) != "batch_norm":
        return None
    if operator(node) == "linear" and len(shape_of(node) or ()) != 2:  # the norm runs along another axis
        return None
    path = graph.program.owner(users[0])
    module = modules.get(path)
    return path if isinstance(module, _BatchNorm) and module.running_mean is not None else None


def changed(graph: ModelGraph, plan: PrunePlan) -> set[Node]:
    """Operations that give something else, or less, once the plan is carried out."""
    program, keep = graph.program, graph.unit_mask(plan.keep)
    cut = {name for name, axes in graph.params.items() if not all(axis.positions(keep).all() for axis in axes)}
    zero = {name for block in graph.blocks if block.name in plan.drop for name in block.branches}
    found: set[Node] = set()
    for node in program.live:
        before = node.all_input_nodes
        if node.name in zero or any(one in found or program.params.get(one.name) in cut for one in before):
            found.add(node)
    return found


def to_refit(found: Sequence[Site], other: set[Node]) -> list[Site]:
    """The layers that read something else than before, or less. other: operations that are changed."""
    return [site for site in found if not site.reads_all or arguments(site.node)["input"] in other]


def left_out(found: Sequence[Site], graph: ModelGraph, plan: PrunePlan, other: set[Node]) -> dict[Node, str]:
    """Layers with cut layers or dropped blocks before them that are not refitted: what runs them, and their names."""
    program, refitted = graph.program, {site.path for site in found}
    gone = {name for block in graph.blocks if block.name in plan.drop for name in block.nodes}
    left: dict[Node, str] = {}
    for node in program.live:
        path = program.owner(node).partition("@")[0]
        behind = any(source in other for source in node.all_input_nodes)
        if behind and node.name not in gone and path not in refitted and _multiplies(node, graph):
            left[node] = path or next(iter(_weights(node, graph)), node.name)
    return left


def _multiplies(node: Node, graph: ModelGraph) -> bool:
    """Whether the operation is a convolution or linear layer, or the product with a parameter."""
    name = operator(node)
    return name == "linear" or name.startswith("conv") or (name in PRODUCTS and bool(_weights(node, graph)))


def _weights(node: Node, graph: ModelGraph) -> list[str]:
    """Names of the parameters that the operation reads, as they are or transposed."""
    known = graph.program.params
    own = [[source, *source.all_input_nodes[:1]] for source in node.all_input_nodes if len(source.all_input_nodes) < 2]
    return [known[one.name] for sources in own for one in sources if one.name in known]


def norms_behind(
    left: Mapping[Node, str], found: Sequence[Site], part: nn.Module, graph: ModelGraph
) -> dict[str, _BatchNorm]:
    """Batch norms that read what layers without a refit made, with no refitted layer between, by path."""
    modules, program = dict(part.named_modules()), graph.program
    refitted, fitted_norms = {site.path for site in found}, {site.norm for site in found}
    norms: dict[str, _BatchNorm] = {}
    reached: set[Node] = set(left)
    for node in program.live:
        path = program.owner(node).partition("@")[0]
        if node not in reached and path not in refitted and any(source in reached for source in node.all_input_nodes):
            reached.add(node)
            module = modules.get(path)
            if operator(node) == "batch_norm" and path not in fitted_norms and isinstance(module, _BatchNorm):
                norms[path] = module
    return {name: norm for name, norm in norms.items() if norm.running_mean is not None}
