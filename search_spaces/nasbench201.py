"""The NAS-Bench-201 space (Dong & Yang 2020, arXiv:2001.00326): one cell of four nodes, all six edges always there.

Three stages of N cells at one, two and four times the channels, a residual block between them. 5**6 = 15,625 cells,
with the accuracy of each published. Counts agree with the authors'; theirs add the bias of the classifier.

Departures from the authors' networks, none of which changes a count or, at even image sizes, an output: the supernet's
weights are the softmax of its parameter `alphas` (as in DARTS; other searches take other ones); the shortcut of a
residual block rounds odd images up, as its convolutions do, instead of failing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune import (
    OPERATIONS,
    CellTopology,
    Gene,
    Genotype,
    InputError,
    ReLUConvBN,
    Site,
    Size,
    SupernetSpace,
    UnknownNameError,
)

NODES = 4
EDGES = tuple((source, target) for target in range(1, NODES) for source in range(target))
PRIMITIVES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


class ResidualBlock(nn.Module):
    """Halves the image and doubles the channels: two convolutions beside a pooled 1x1 convolution without norm."""

    reduction = True

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(inputs, outputs, 3, 2)
        self.conv_b = ReLUConvBN(outputs, outputs, 3, 1)
        self.downsample = nn.Sequential(nn.AvgPool2d(2, 2, ceil_mode=True), nn.Conv2d(inputs, outputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, h, w) -> (n, outputs, ceil(h / 2), ceil(w / 2))."""
        return self.downsample(x) + self.conv_b(self.conv_a(x))


class MixedOp(nn.ModuleList):
    """The operations of an edge, weighed and added up."""

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x: (n, channels, h, w). weights: (ops,)."""
        parts = [weight * op(x) for weight, op in zip(weights, self, strict=True)]
        return sum(parts[1:], start=parts[0])


class SearchCell(nn.Module):
    """All operations on all edges. edges: "target<-source" -> one module for each operation."""

    def __init__(self, channels: int, ops: Sequence[str]) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{target}<-{source}": MixedOp(OPERATIONS[name](channels, 1, False) for name in ops)
                for source, target in EDGES
            }
        )

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """x: (n, channels, h, w). weights: (6, ops), each row summing to one."""
        nodes = [x]
        for target in range(1, NODES):
            parts = [
                self.edges[f"{target}<-{source}"](nodes[source], weights[EDGES.index((source, target))])
                for source in range(target)
            ]
            nodes.append(sum(parts[1:], start=parts[0]))
        return nodes[-1]


class FinalCell(nn.Module):
    """One operation on each edge, in the order of `EDGES`; edges that the genotype leaves out connect nothing."""

    def __init__(self, channels: int, genes: Sequence[Gene]) -> None:
        super().__init__()
        self.genes = complete(genes)
        self.layers = nn.ModuleList(OPERATIONS[gene.op](channels, 1, True) for gene in self.genes)

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for target in range(1, NODES):
            pairs = zip(self.genes, self.layers, strict=True)
            parts = [op(nodes[gene.source]) for gene, op in pairs if gene.target == target]
            nodes.append(sum(parts[1:], start=parts[0]))
        return nodes[-1]


def complete(genes: Sequence[Gene]) -> tuple[Gene, ...]:
    """The genes and one that connects nothing for each edge without any, in the order of `EDGES`."""
    used = {(gene.source, gene.target) for gene in genes}
    bare = [Gene("none", source, target) for source, target in EDGES if (source, target) not in used]
    return tuple(sorted([*genes, *bare], key=lambda gene: EDGES.index((gene.source, gene.target))))


class Body(nn.Module):
    """Stem, three stages and classifier."""

    def __init__(self, size: Size, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(size.channels_in, size.channels, 3, padding=1, bias=False), nn.BatchNorm2d(size.channels)
        )
        self.cells = nn.ModuleList()
        for stage in range(3):
            channels = size.channels * 2**stage
            if stage:
                self.cells.append(ResidualBlock(channels // 2, channels))
            self.cells.extend(make(channels) for _ in range(size.layers))
        self.lastact = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.global_pooling = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, size.classes)

    def end(self, x: Tensor) -> Tensor:
        """The logits."""
        return self.classifier(self.global_pooling(self.lastact(x)).flatten(1))


class SearchNetwork(Body):
    """Every operation on every edge, mixed by the softmax of `alphas`, (6, ops), shared by all cells."""

    def __init__(self, size: Size, ops: Sequence[str]) -> None:
        super().__init__(size, lambda channels: SearchCell(channels, ops))
        self.alphas = nn.Parameter(1e-3 * torch.randn(len(EDGES), len(ops)))

    def forward(self, x: Tensor) -> Tensor:
        weights = self.alphas.softmax(dim=-1)
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x, weights) if isinstance(cell, SearchCell) else cell(x)
        return self.end(x)


class FinalNetwork(Body):
    """The network of one cell."""

    def __init__(self, genotype: Genotype, size: Size) -> None:
        super().__init__(size, lambda channels: FinalCell(channels, genotype.cells["cell"]))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x)
        return self.end(x)


class NasBench201(SupernetSpace):
    """One kind of cell, "cell". `Size.layers` is the number of cells in each of the three stages.

    Args:
        ops: what may sit on an edge, in the order of the columns of the weights; the paper's five by default, also all
            others of `OPERATIONS`.
    """

    sizes: ClassVar[Mapping[str, Size]] = {
        "search": Size(16, 5),
        "cifar10": Size(16, 5),
        "cifar100": Size(16, 5, classes=100),
        "imagenet16": Size(16, 5, classes=120, resolution=16),
    }

    def __init__(self, ops: Sequence[str] = PRIMITIVES) -> None:
        super().__init__()
        self.ops = self.checked_ops(ops)

    @property
    def cells(self) -> Mapping[str, CellTopology]:
        return {"cell": CellTopology(1, EDGES, self.ops)}

    def supernet(self, size: Size | None = None, *, track_running_stats: bool = True) -> SearchNetwork:
        """The search network.

        Args:
            size: `sizes["search"]` by default.
            track_running_stats: whether the batch norms of the candidates keep averages for evaluation. DARTS-PT's and
                NASLib's do not: they use the batch's own statistics always.
        """
        size = _small(size or self.sizes["search"])
        net = SearchNetwork(size, self.ops)
        if not track_running_stats:
            for cell in net.cells:
                if isinstance(cell, SearchCell):
                    _forget_averages(cell)
        return net

    def network(self, genotype: Genotype, size: Size | None = None) -> FinalNetwork:
        size = _small(size or self.sizes["cifar10"])
        self.check(genotype)
        return FinalNetwork(genotype, size)

    def group(self, cell: nn.Module, index: int) -> str:
        return f"cell/{index}"

    def weights(self, supernet: nn.Module, cell: nn.Module, index: int) -> Tensor:
        return supernet.alphas[index]

    def operation(self, name: str, channels: int, stride: int) -> nn.Module:
        self.check_op(name)
        return OPERATIONS[name](channels, stride, True)

    def check_op(self, name: str) -> None:
        if name not in OPERATIONS:
            raise UnknownNameError("operation", name, OPERATIONS)

    def sites(self, size: Size) -> Iterator[Site]:
        image = size.resolution
        for stage in range(3):
            for _ in range(size.layers):
                for source, target in EDGES:
                    yield Site("cell", source, target, size.channels * 2**stage, 1, image)
            image = -(-image // 2)

    def sources(self, network: nn.Module, supernet: nn.Module, genotype: Genotype) -> Mapping[str, str]:
        found = {}
        for number, (cell, theirs) in enumerate(zip(network.cells, supernet.cells, strict=False)):
            if isinstance(cell, ResidualBlock) != isinstance(theirs, ResidualBlock):
                found[f"cells.{number}"] = ""
            elif not isinstance(cell, ResidualBlock):
                for place, gene in enumerate(cell.genes):
                    edge = f"cells.{number}.edges.{gene.target}<-{gene.source}"
                    known = gene.op in self.ops
                    found[f"cells.{number}.layers.{place}"] = f"{edge}.{self.ops.index(gene.op)}" if known else ""
        return found


def _forget_averages(cell: nn.Module) -> None:
    for module in cell.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.track_running_stats = False
            module.running_mean = module.running_var = module.num_batches_tracked = None


def _small(size: Size) -> Size:
    if size.imagenet:
        raise InputError("NAS-Bench-201 has no stem for large images; expected a size without `imagenet`")
    return size
