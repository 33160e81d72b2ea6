"""The DARTS space of convolutional cells (Liu, Simonyan & Yang 2019, arXiv:1806.09055).

A cell reads the two cells before it and has four nodes; every node adds up operations on edges from earlier ones, and
the nodes are concatenated. Two of three thirds of the network begin with a reduction cell, which halves the image and
doubles the channels. All normal cells are alike, and so are the reduction cells.

Departures from the authors' networks, none of which changes a count or, at even image sizes, an output: the weights of
the operations are parameters; forward gives logits alone unless an auxiliary head trains; drop path is off until
`drop_path_prob` is set; a factorised reduction pads odd images instead of failing, as NNI does.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune import (
    OPERATIONS,
    CellTopology,
    FactorizedReduce,
    Gene,
    Genotype,
    InputError,
    ReLUConvBN,
    Site,
    Size,
    SupernetSpace,
    UnknownNameError,
)

INPUTS = 2
NODES = (2, 3, 4, 5)
EDGES = tuple((source, target) for target in NODES for source in range(target))
POOL = 5


PRIMITIVES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


class MixedOp(nn.Module):
    """The weighted sum of all candidates on one edge. Pools are followed by a batch norm, which all others end with."""

    def __init__(self, channels: int, stride: int, ops: Sequence[str]) -> None:
        super().__init__()
        self._ops = nn.ModuleList()
        for name in ops:
            op = OPERATIONS[name](channels, stride, False)
            self._ops.append(nn.Sequential(op, nn.BatchNorm2d(channels, affine=False)) if "pool" in name else op)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x: (n, channels, h, w). weights: (ops,)."""
        return add([weight * op(x) for weight, op in zip(weights, self._ops, strict=True)])


class Edges(nn.ModuleList):
    """The operations of one cell; knows which kind of cell it belongs to."""

    reduction: bool


@dataclass(frozen=True)
class Plan:
    """The channels of one cell. before, last: what the two cells before it give. after_reduction: whether the last of
    them is a reduction cell, so that the one before gives larger images."""

    before: int
    last: int
    channels: int
    reduction: bool
    after_reduction: bool


class Cell(nn.Module):
    """What search and final cells share: two preprocessed inputs and the flat list `_ops`."""

    def __init__(self, plan: Plan, *, affine: bool) -> None:
        super().__init__()
        self.reduction = plan.reduction
        before = FactorizedReduce if plan.after_reduction else ReLUConvBN
        self.preprocess0: nn.Module = before(plan.before, plan.channels, affine=affine)
        self.preprocess1 = ReLUConvBN(plan.last, plan.channels, affine=affine)
        self._ops = Edges()
        self._ops.reduction = plan.reduction

    def stride(self, source: int) -> int:
        return 2 if self.reduction and source < INPUTS else 1


class SearchCell(Cell):
    """All operations on all fourteen edges."""

    def __init__(self, plan: Plan, ops: Sequence[str]) -> None:
        super().__init__(plan, affine=False)
        self._ops.extend(MixedOp(plan.channels, self.stride(source), ops) for source, _ in EDGES)

    def forward(self, before: Tensor, last: Tensor, weights: Tensor) -> Tensor:
        """weights: (14, ops), each row summing to one."""
        states = [self.preprocess0(before), self.preprocess1(last)]
        for _ in NODES:
            first = sum(range(INPUTS, len(states)))
            states.append(add([self._ops[first + i](state, weights[first + i]) for i, state in enumerate(states)]))
        return torch.cat(states[INPUTS:], dim=1)


class FinalCell(Cell):
    """The operations of a genotype; a node without any is zero."""

    def __init__(self, plan: Plan, genes: Sequence[Gene], concat: Sequence[int]) -> None:
        super().__init__(plan, affine=True)
        self.genes, self.concat = complete(genes), tuple(concat)
        self._ops.extend(OPERATIONS[gene.op](plan.channels, self.stride(gene.source), True) for gene in self.genes)

    def forward(self, before: Tensor, last: Tensor, drop_path_prob: float = 0.0) -> Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for target in NODES:
            parts = []
            for gene, op in zip(self.genes, self._ops, strict=True):
                if gene.target == target:
                    part = op(states[gene.source])
                    drop = self.training and drop_path_prob > 0 and not isinstance(op, nn.Identity)
                    parts.append(drop_path(part, drop_path_prob) if drop else part)
            states.append(add(parts))
        return torch.cat([states[node] for node in self.concat], dim=1)


def complete(genes: Sequence[Gene]) -> tuple[Gene, ...]:
    """The genes and some that connect nothing, so that every node has one and every input is read."""
    bare = [Gene("none", 0, target) for target in NODES if all(gene.target != target for gene in genes)]
    unread = [Gene("none", i, NODES[0]) for i in range(INPUTS) if all(gene.source != i for gene in (*genes, *bare))]
    return tuple(sorted([*genes, *bare, *unread], key=lambda gene: gene.target))


def add(parts: Sequence[Tensor]) -> Tensor:
    """Their sum; at least one."""
    return sum(parts[1:], start=parts[0])


def drop_path(x: Tensor, probability: float) -> Tensor:
    """Zeroes whole items with this probability and scales the others up (Larsson et al. 2017, arXiv:1605.07648)."""
    keep = 1.0 - probability
    return x / keep * torch.empty(len(x), 1, 1, 1, dtype=x.dtype, device=x.device).bernoulli_(keep)


class AuxiliaryHead(nn.Module):
    """A second classifier for training, on an image that a pool leaves at 2x2; (n, channels, h, w) -> (n, classes)."""

    def __init__(self, channels: int, classes: int, *, stride: int, second_norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.ReLU(),
            nn.AvgPool2d(POOL, stride, padding=0, count_include_pad=False),
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            nn.BatchNorm2d(768) if second_norm else nn.Identity(),
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Body(nn.Module):
    """Stem, cells and classifier."""

    def __init__(self, size: Size, make: Callable[[Plan], Cell], width: Mapping[bool, int]) -> None:
        """width: how many nodes a cell concatenates, by whether it is a reduction cell."""
        super().__init__()
        first = size.channels if size.imagenet else 3 * size.channels
        if size.imagenet:
            half = max(1, size.channels // 2)
            self.stem0 = nn.Sequential(
                nn.Conv2d(size.channels_in, half, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(),
                nn.Conv2d(half, size.channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(size.channels),
            )
            self.stem1 = nn.Sequential(
                nn.ReLU(),
                nn.Conv2d(size.channels, size.channels, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(size.channels),
            )
        else:
            self.stem = nn.Sequential(
                nn.Conv2d(size.channels_in, first, 3, padding=1, bias=False), nn.BatchNorm2d(first)
            )
        self.cells = nn.ModuleList()
        before = last = first
        for plan_channels, reduction, after_reduction in walk(size):
            self.cells.append(make(Plan(before, last, plan_channels, reduction, after_reduction)))
            before, last = last, width[reduction] * plan_channels
        image = list(resolutions(size))[-1][1]
        self.global_pooling = nn.AvgPool2d(image) if size.imagenet else nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, size.classes)

    def begin(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the first cell reads."""
        if hasattr(self, "stem"):
            x = self.stem(x)
            return x, x
        x = self.stem0(x)
        return x, self.stem1(x)

    def end(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.classifier(self.global_pooling(x).flatten(1))


class SearchNetwork(Body):
    """Every operation on every edge, mixed by the softmax of `alphas_normal` and `alphas_reduce`, each (14, ops)."""

    def __init__(self, size: Size, ops: Sequence[str]) -> None:
        super().__init__(size, lambda plan: SearchCell(plan, ops), dict.fromkeys((False, True), len(NODES)))
        self.alphas_normal = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(ops)))
        self.alphas_reduce = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(ops)))

    def forward(self, x: Tensor) -> Tensor:
        weights = {False: self.alphas_normal.softmax(dim=-1), True: self.alphas_reduce.softmax(dim=-1)}
        before, last = self.begin(x)
        for cell in self.cells:
            before, last = last, cell(before, last, weights[cell.reduction])
        return self.end(last)


class FinalNetwork(Body):
    """The network of one genotype. Gives (logits, auxiliary logits) in training with an auxiliary head, else logits.

    drop_path_prob: in training, the probability with which an item loses an operation; set it at any time.
    """

    def __init__(self, genotype: Genotype, size: Size, *, auxiliary: bool, second_norm: bool, drop_path: float) -> None:
        kinds = {False: "normal", True: "reduce"}
        concat = {reduction: genotype.concat.get(kind) or NODES for reduction, kind in kinds.items()}

        def make(plan: Plan) -> Cell:
            return FinalCell(plan, genotype.cells[kinds[plan.reduction]], concat[plan.reduction])

        super().__init__(size, make, {reduction: len(nodes) for reduction, nodes in concat.items()})
        self.drop_path_prob = drop_path
        self.auxiliary_after = 2 * size.layers // 3
        self.auxiliary_head: AuxiliaryHead | None = None
        if auxiliary:
            channels, reduction, _ = list(walk(size))[self.auxiliary_after]
            inputs = channels * len(concat[reduction])
            stride = 2 if size.imagenet else 3
            self.auxiliary_head = AuxiliaryHead(inputs, size.classes, stride=stride, second_norm=second_norm)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        before, last = self.begin(x)
        extra = None
        for number, cell in enumerate(self.cells):
            before, last = last, cell(before, last, self.drop_path_prob)
            if self.training and self.auxiliary_head is not None and number == self.auxiliary_after:
                extra = self.auxiliary_head(last)
        logits = self.end(last)
        return logits if extra is None else (logits, extra)


def walk(size: Size) -> Iterator[tuple[int, bool, bool]]:
    """The channels of each cell, whether it is a reduction cell, and whether its first input must be halved."""
    channels, after = size.channels, size.imagenet
    for number in range(size.layers):
        reduction = number in (size.layers // 3, 2 * size.layers // 3)
        channels *= 2 if reduction else 1
        yield channels, reduction, after
        after = reduction


class Darts(SupernetSpace):
    """Cells "normal" and "reduce"; a genotype has two operations for each node. `Size.layers` is the number of cells.

    Args:
        ops: what may sit on an edge, in the order of the columns of the weights; the paper's eight by default, also
            all others of `OPERATIONS`. RobustDARTS' toy spaces are S2 = skip_connect, sep_conv_3x3; S3 = none and
            those; S4 = noise, sep_conv_3x3. Its S1, with other operations on every edge, is not covered.
    """

    sizes: ClassVar[Mapping[str, Size]] = {
        "search": Size(16, 8),
        "cifar": Size(36, 20),
        "imagenet": Size(48, 14, classes=1000, resolution=224, imagenet=True),
    }

    def __init__(self, ops: Sequence[str] = PRIMITIVES) -> None:
        super().__init__()
        self.ops = self.checked_ops(ops)

    @property
    def cells(self) -> Mapping[str, CellTopology]:
        return dict.fromkeys(("normal", "reduce"), CellTopology(INPUTS, EDGES, self.ops, 2, NODES))

    def supernet(self, size: Size | None = None) -> SearchNetwork:
        return SearchNetwork(size or self.sizes["search"], self.ops)

    def network(
        self,
        genotype: Genotype,
        size: Size | None = None,
        *,
        auxiliary: bool = False,
        second_norm: bool | None = None,
        drop_path: float = 0.0,
    ) -> FinalNetwork:
        """The genotype's network; see `FinalNetwork` for what it returns.

        Args:
            genotype: with any number of operations for each node; a node without any is zero.
            size: `sizes["cifar"]` by default.
            auxiliary: whether a second classifier trains after two thirds of the cells (the paper weighs its loss 0.4).
            second_norm: whether that head has a batch norm before its last ReLU. The authors' has it for CIFAR and not
                for ImageNet, which is the default; NNI's always has it.
            drop_path: the probability that `drop_path_prob` starts with, in [0, 1).
        """
        size = size or self.sizes["cifar"]
        self.check(genotype)
        if not 0 <= drop_path < 1:
            raise InputError(f"expected a probability of drop path in [0, 1), got {drop_path}")
        if auxiliary:
            _check_auxiliary(size)
        second = not size.imagenet if second_norm is None else second_norm
        return FinalNetwork(genotype, size, auxiliary=auxiliary, second_norm=second, drop_path=drop_path)

    def group(self, cell: nn.Module, index: int) -> str:
        return f"{'reduce' if _reduction(cell) else 'normal'}/{index}"

    def weights(self, supernet: nn.Module, cell: nn.Module, index: int) -> Tensor:
        return (supernet.alphas_reduce if _reduction(cell) else supernet.alphas_normal)[index]

    def operation(self, name: str, channels: int, stride: int) -> nn.Module:
        self.check_op(name)
        return OPERATIONS[name](channels, stride, True)

    def check_op(self, name: str) -> None:
        if name not in OPERATIONS:
            raise UnknownNameError("operation", name, OPERATIONS)

    def sites(self, size: Size) -> Iterator[Site]:
        for (channels, reduction, _), (inner, outer) in zip(walk(size), resolutions(size), strict=True):
            for source, target in EDGES:
                entry = source < INPUTS
                stride = 2 if reduction and entry else 1
                kind = "reduce" if reduction else "normal"
                yield Site(kind, source, target, channels, stride, inner if entry else outer)

    def sources(self, network: nn.Module, supernet: nn.Module, genotype: Genotype) -> Mapping[str, str]:
        found = {}
        for number, (cell, theirs) in enumerate(zip(network.cells, supernet.cells, strict=False)):
            if cell.reduction != theirs.reduction:
                found[f"cells.{number}"] = ""
                continue
            for place, gene in enumerate(cell.genes):
                edge = EDGES.index((gene.source, gene.target))
                path = f"cells.{number}._ops.{edge}._ops.{self.ops.index(gene.op)}" if gene.op in self.ops else ""
                found[f"cells.{number}._ops.{place}"] = path
        return found


def resolutions(size: Size) -> Iterator[tuple[int, int]]:
    """The image that the operations of each cell read, and the one that they give; in pixels."""
    now = -(-size.resolution // 8) if size.imagenet else size.resolution
    for _, reduction, _ in walk(size):
        after = -(-now // 2) if reduction else now
        yield now, after
        now = after


def _reduction(cell: nn.Module) -> bool:
    found = getattr(cell, "reduction", None)
    if found is None:
        raise InputError(f"expected a cell of a DARTS supernet, got a {type(cell).__name__}, which is of no kind")
    return bool(found)


def _check_auxiliary(size: Size) -> None:
    """Refuses an image that the head's pool does not leave at 2x2."""
    _, image = list(resolutions(size))[2 * size.layers // 3]
    stride = 2 if size.imagenet else 3
    if (image - POOL) // stride + 1 != 2:
        raise InputError(
            f"an auxiliary head reads images of {POOL + stride} to {POOL + 2 * stride - 1} pixels, here they have "
            f"{image} from {size.resolution}; train without one, or at 32 pixels (224 with `imagenet`)"
        )
