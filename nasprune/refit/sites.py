"""Which layers of a cut network are refitted, and which batch norms stand behind those that are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nasprune.calibration.called import stand_in
from nasprune.calibration.layers import is_layer
from nasprune.cut.plan import PrunePlan
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import Program, arguments, operator, shape_of
from nasprune.graph.together import gathered

PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Site:
    """A layer to refit. norm: path of the batch norm behind it. block: the block whose branch it ends.

    path: of its module; where code multiplies by a function, the name of the weight. weight: its name. made, read:
    which of the dense layer's output and input channels stay, boolean; `None` is all. nodes: its runs in the dense
    program, several where it takes several inputs. depthwise: whether the dense layer is a depthwise convolution.
    """

    path: str
    weight: str
    nodes: tuple[Node, ...]
    norm: str | None
    block: str | None
    made: Tensor | None
    read: Tensor | None
    depthwise: bool

    @property
    def reads_all(self) -> bool:
        return self.read is None or bool(self.read.all())

    @property
    def shared(self) -> bool:
        """Whether it runs more than once."""
        return len(self.nodes) > 1

    @property
    def by_function(self) -> bool:
        """Whether no module runs it."""
        return self.path == self.weight

    def layer(self, part: nn.Module, program: Program) -> nn.Module:
        """What runs it in `part`, or stands in for that. program: of `part`, or of the network it was cut from."""
        found = stand_in(part, program, self.weight) if self.by_function else part.get_submodule(self.path)
        assert found is not None
        return found


def sites(part: nn.Module, graph: ModelGraph, plan: PrunePlan) -> list[Site]:
    """The layers that stay, in execution order: they run once, or several times and no run needs what another gave."""
    modules, program = dict(part.named_modules()), graph.program
    keep = graph.unit_mask(plan.keep)
    gone = {name for block in graph.blocks if block.name in plan.drop for name in block.nodes}
    ends = {b.branches[0]: b.name for b in graph.blocks if len(b.branches) == 1 and b.name not in plan.drop}
    held = Counter(id(module.weight) for module in modules.values() if is_layer(module))
    apart = {nodes for nodes in program.multiplying.values() if len(nodes) == 1}
    several = {nodes for nodes in program.multiplying.values() if len(nodes) > 1 and _alike(nodes, part, program)}
    usable = apart | gathered(program, several).together if several else apart
    normed = Counter(_runner(node, part, program) for node in program.live if operator(node) == "batch_norm")
    found: list[Site] = []
    for weight, nodes in program.multiplying.items():
        node = nodes[0]
        path, _, again = program.owner(node).partition("@")
        if nodes not in usable or again or any(one.name in gone for one in nodes):
            continue
        own = modules.get(path)
        if own is None or not is_layer(own) or weight != f"{path}.weight":
            path, own = weight, stand_in(part, program, weight)
        if own is None or held[id(own.weight)] > 1:
            continue
        norms = {_norm_behind(one, modules, graph) for one in nodes}
        norm = norms.pop() if len(norms) == 1 else None
        norm = norm if norm is not None and normed[modules[norm]] == len(nodes) else None  # behind nothing else
        last = next(iter(node.users)) if norm else node
        axes = {a.axis: torch.from_numpy(a.positions(keep).reshape(-1)) for a in graph.params.get(weight, ())}
        made, read = (axes.get(1), axes.get(0)) if getattr(own, "transposed", False) else (axes.get(0), axes.get(1))
        if is_depthwise(own):
            made = axes.get(0)
            read = made.reshape(int(own.in_channels), -1)[:, 0] if made is not None else None  # type: ignore[arg-type]
        block = ends.get(last.name) if len(nodes) == 1 else None
        found.append(Site(path, weight, nodes, norm, block, made, read, is_depthwise(own)))
    return found


def _alike(nodes: Sequence[Node], part: nn.Module, program: Program) -> bool:
    """Whether one module, or one kind of call, runs all of them, and they differ in what they read only."""
    runners = {_runner(node, part, program) for node in nodes}
    first, *others = ({**arguments(node), "input": operator(node)} for node in nodes)
    return len(runners) == 1 and all(other == first for other in others)


def _runner(node: Node, part: nn.Module, program: Program) -> nn.Module:
    """The innermost module that ran the operation, whichever of its names it had then."""
    return part.get_submodule(program.owner(node).partition("@")[0])


def is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels


def _norm_behind(node: Node, modules: Mapping[str, nn.Module], graph: ModelGraph) -> str | None:
    users = list(node.users)
    if len(users) != 1 or operator(users[0]) != "batch_norm":
        return None
    if operator(node) == "linear" and len(shape_of(node) or ()) != 2:  # the norm runs along another axis
        return None
    path = graph.program.owner(users[0]).partition("@")[0]
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
    return [
        site for site in found if not site.reads_all or any(arguments(node)["input"] in other for node in site.nodes)
    ]


def left_out(found: Sequence[Site], graph: ModelGraph, plan: PrunePlan, other: set[Node]) -> dict[Node, str]:
    """Layers with cut layers or dropped blocks before them that are not refitted: what runs them, and their names."""
    program, refitted = graph.program, {node for site in found for node in site.nodes}
    gone = {name for block in graph.blocks if block.name in plan.drop for name in block.nodes}
    left: dict[Node, str] = {}
    for node in program.live:
        behind = any(source in other for source in node.all_input_nodes)
        if behind and node.name not in gone and node not in refitted and _multiplies(node, graph):
            path = program.owner(node).partition("@")[0]
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
    refitted, fitted_norms = {node for site in found for node in site.nodes}, {site.norm for site in found}
    norms: dict[str, _BatchNorm] = {}
    reached: set[Node] = set(left)
    for node in program.live:
        if node in reached or node in refitted:
            continue
        if any(source in reached for source in node.all_input_nodes):
            reached.add(node)
            path = program.owner(node).partition("@")[0]
            module = modules.get(path)
            if operator(node) == "batch_norm" and path not in fitted_norms and isinstance(module, _BatchNorm):
                norms[path] = module
    return {name: norm for name, norm in norms.items() if norm.running_mean is not None}
