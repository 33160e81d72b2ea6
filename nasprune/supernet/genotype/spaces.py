"""Spaces of cells: what a supernet and the networks in it have in common, and what every operation costs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from nasprune.errors import InputError, UnknownNameError
from nasprune.supernet.genotype.genotype import Gene, Genotype
from nasprune.supernet.price.counting import Counter, Counts, checked_counter
from nasprune.supernet.price.likeness import count_once


@dataclass(frozen=True)
class CellTopology:
    """What every cell of one kind looks like.

    inputs: number of input nodes, numbered from 0. edges: (source, target), in the order of the rows of the weights.
    ops: what may sit on an edge, in the order of the columns. inputs_per_node: how many edges into a node a genotype
    keeps; `None` is all. concat: the nodes whose outputs are concatenated; empty where the last node is the output.
    """

    inputs: int
    edges: tuple[tuple[int, int], ...]
    ops: tuple[str, ...]
    inputs_per_node: int | None = None
    concat: tuple[int, ...] = ()

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes that are not inputs, ascending."""
        return tuple(sorted({target for _, target in self.edges}))


@dataclass(frozen=True)
class Size:
    """How large a network is made.

    channels: of the first cells. layers: number of cells, or what the space counts instead. classes: outputs.
    channels_in: of the images. resolution: of the square images, pixels. imagenet: with the stem for large images.
    """

    channels: int = 16
    layers: int = 8
    classes: int = 10
    channels_in: int = 3
    resolution: int = 32
    imagenet: bool = False

    def __post_init__(self) -> None:
        numbers = {name: value for name, value in vars(self).items() if name != "imagenet"}
        low = {name: value for name, value in numbers.items() if value < 1}
        if low:
            raise InputError(f"the sizes of a network must be at least 1, got {low}")

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Of one image."""
        return (1, self.channels_in, self.resolution, self.resolution)


@dataclass(frozen=True)
class Site:
    """One edge of one cell in a built network, and the tensor that an operation there reads."""

    kind: str
    source: int
    target: int
    channels: int
    stride: int
    resolution: int


@dataclass(frozen=True)
class OpCosts:
    """What each operation adds to a network of one size: costs are additive, so a budget is an exact integer program.

    counter: the unit, see `Counts`. base: the network with nothing on any edge. ops: (kind of cell, source, target,
    operation) -> what one gene adds, summed over all cells of that kind.
    """

    counter: str
    base: int
    ops: Mapping[tuple[str, int, int, str], int]

    def total(self, genotype: Genotype) -> int:
        """The cost of the network that the genotype builds, exactly.

        Raises:
            InputError: a gene sits on an edge or names an operation that the space does not have.
        """
        return self.base + sum(self[kind, gene] for kind, genes in genotype.cells.items() for gene in genes)

    def __getitem__(self, where: tuple[str, Gene]) -> int:
        kind, gene = where
        key = (kind, gene.source, gene.target, gene.op)
        if key not in self.ops:
            raise InputError(
                f"no {gene.op!r} on the edge {gene.source} -> {gene.target} of a {kind!r} cell; "
                "expected a genotype of the space that the costs were counted for"
            )
        return self.ops[key]


class SupernetSpace(ABC):
    """A family of networks made of cells whose edges carry one of several operations.

    A space is one class in a file of `search_spaces/`. Operations that a genotype leaves out are no connection.

    sizes: the sizes that the paper uses; "search" is there always.
    """

    sizes: ClassVar[Mapping[str, Size]]

    def __init__(self) -> None:
        self._counted: dict[Size, tuple[Counts, dict[tuple[str, int, int, str], Counts]]] = {}

    @property
    @abstractmethod
    def cells(self) -> Mapping[str, CellTopology]:
        """Kind of cell -> how it is wired."""

    @abstractmethod
    def supernet(self, size: Size | None = None) -> nn.Module:
        """The network with all operations on all edges; (n, channels_in, h, w) -> logits (n, classes).

        Its weights of operations are parameters, so they are in its `state_dict`. No size is `sizes["search"]`.
        """

    @abstractmethod
    def network(self, genotype: Genotype, size: Size | None = None) -> nn.Module:
        """The network with the genotype's operations alone; (n, channels_in, h, w) -> logits (n, classes).

        Raises:
            InputError: the genotype is not of this space.
        """

    @abstractmethod
    def group(self, cell: nn.Module, index: int) -> str:
        """What edge `index` of the supernet's module `cell` shares its decision with, such as "normal/3"."""

    @abstractmethod
    def weights(self, supernet: nn.Module, cell: nn.Module, index: int) -> Tensor:
        """The raw weights of the operations on edge `index` of `cell`, before any softmax, (ops,)."""

    @abstractmethod
    def operation(self, name: str, channels: int, stride: int) -> nn.Module:
        """One operation as it stands in the final network; (n, channels, h, w) -> (n, channels, h/stride, w/stride)."""

    @abstractmethod
    def sites(self, size: Size) -> Iterable[Site]:
        """Every edge of every cell of a network."""

    @abstractmethod
    def sources(self, network: nn.Module, supernet: nn.Module, genotype: Genotype) -> Mapping[str, str]:
        """Path of a module in `network` -> path of the module of `supernet` that its values come from.

        Modules that are not named come from the module of the same path; "" is nowhere.
        """

    def check(self, genotype: Genotype) -> None:
        """Nothing where every gene has an edge and an operation of this space, and nodes to be concatenated exist.

        Raises:
            InputError: otherwise. UnknownNameError: there is no such kind of cell or operation.
        """
        if missing := set(self.cells) - set(genotype.cells):
            raise InputError(f"expected a genotype with the cells {sorted(self.cells)}, it lacks {sorted(missing)}")
        for kind, genes in genotype.cells.items():
            if kind not in self.cells:
                raise UnknownNameError("kind of cell", kind, self.cells)
            topology = self.cells[kind]
            for gene in genes:
                if (gene.source, gene.target) not in topology.edges:
                    raise InputError(f"a {kind!r} cell has no edge {gene.source} -> {gene.target}: {topology.edges}")
                self.check_op(gene.op)
            if odd := set(genotype.concat.get(kind, ())) - set(topology.nodes):
                raise InputError(f"a {kind!r} cell has the nodes {topology.nodes}, it cannot concatenate {sorted(odd)}")

    def check_op(self, name: str) -> None:
        """Nothing where `operation` can build it; by default the operations of the cells.

        Raises:
            UnknownNameError: otherwise.
        """
        known = {op for topology in self.cells.values() for op in topology.ops}
        if name not in known:
            raise UnknownNameError("operation", name, known)

    def checked_ops(self, ops: Sequence[str]) -> tuple[str, ...]:
        """The operations that a constructor was given.

        Raises:
            InputError: there are none, or one twice. UnknownNameError: one cannot be built.
        """
        for name in ops:
            self.check_op(name)
        if len(set(ops)) < len(ops) or not ops:
            raise InputError(f"expected different operations, at least one, got {tuple(ops)}")
        return tuple(ops)

    def nothing(self) -> Genotype:
        """The genotype without any operation."""
        return Genotype(
            dict.fromkeys(self.cells, ()),
            {kind: topology.concat for kind, topology in self.cells.items() if topology.concat},
        )

    def costs(self, size: Size | None = None, counter: Counter = "macs") -> OpCosts:
        """What every operation adds to the final network, and what the network costs without any.

        Counted on modules in isolation, each once for each shape it sees; genotypes are taken to concatenate all nodes
        that the topology concatenates.

        Raises:
            InputError: there is no such counter, or an operation does not run at the size.
        """
        checked_counter(counter)
        size = size or self.sizes["search"]
        if size not in self._counted:
            self._counted[size] = self._count(size)
        base, ops = self._counted[size]
        return OpCosts(counter, base[counter], {key: counts[counter] for key, counts in ops.items()})

    def _count(self, size: Size) -> tuple[Counts, dict[tuple[str, int, int, str], Counts]]:
        with torch.random.fork_rng(devices=[]):
            base = count_once(self.network(self.nothing(), size).eval(), size.input_shape)
            seen: dict[tuple[str, int, int, int], Counts] = {}
            table = {
                (kind, source, target, op): Counts()
                for kind, topology in self.cells.items()
                for source, target in topology.edges
                for op in topology.ops
            }
            for site in self.sites(size):
                for op in self.cells[site.kind].ops:
                    at = (op, site.channels, site.stride, site.resolution)
                    if at not in seen:
                        shape = (1, site.channels, site.resolution, site.resolution)
                        seen[at] = count_once(self.operation(op, site.channels, site.stride), shape)
                    key = (site.kind, site.source, site.target, op)
                    table[key] = table[key] + seen[at]
        return base, table

    def inherit(self, network: nn.Module, supernet: nn.Module, genotype: Genotype) -> tuple[str, ...]:
        """Copies the supernet's values into the network that the genotype built, in place, where the shapes agree.

        Both must have the same channels and layers for this to reach the operations. A search trains batch norms
        without scale and shift, so those of the network's operations stay at 1 and 0: recalibrate or fine-tune before
        judging it.

        Returns:
            The names in the network's `state_dict` that were left as they were.
        """
        sources = self.sources(network, supernet, genotype)
        given = supernet.state_dict()
        left = []
        with torch.no_grad():
            for name, value in network.state_dict().items():
                source = given.get(_renamed(name, sources))
                if source is None or source.shape != value.shape:
                    left.append(name)
                else:
                    value.copy_(source)
        return tuple(left)


def _renamed(name: str, sources: Mapping[str, str]) -> str:
    """The name with its longest prefix among `sources` replaced."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        prefix = ".".join(parts[:cut])
        if prefix in sources:
            return ".".join((sources[prefix], *parts[cut:]))
    return name
