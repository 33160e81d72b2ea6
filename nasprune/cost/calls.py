"""One call of an operator, as formulas see it: sizes of its tensors, and its plain arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from torch.fx import Node

from nasprune.cost.sizes import Extent, dense
from nasprune.graph.program import arguments, operator

Shape = tuple[int | Extent, ...]


class Call(ABC):
    """A call whose arguments are looked up by the names in the operator's schema. operator: "conv2d", "matmul"."""

    operator: str

    @abstractmethod
    def shape(self, *names: str) -> Shape | None:
        """Sizes of the first of these arguments that was given a tensor; `None` where none was."""

    @abstractmethod
    def shapes(self, name: str) -> list[Shape]:
        """Sizes of the tensors in a list."""

    @abstractmethod
    def value(self, name: str) -> Any:
        """A number, a text, a list of numbers, or `None` where it was not given or is not known."""

    @property
    @abstractmethod
    def result(self) -> Shape:
        """Sizes of the only tensor that the call makes."""

    def given(self, *names: str) -> Shape:
        """Sizes of an argument that must be a tensor.

        Raises:
            LookupError: it is none.
        """
        found = self.shape(*names)
        if found is None:
            raise LookupError(f"{self.operator} was not given {' or '.join(names)}")
        return found


class ProgramCall(Call):
    """A call of a captured program. sizes: of the values of the program."""

    def __init__(self, node: Node, sizes: Callable[[Node], Shape]) -> None:
        self.operator = operator(node)
        self._node = node
        self._arguments = arguments(node)
        self._sizes = sizes

    def shape(self, *names: str) -> Shape | None:
        found = (self._arguments.get(name) for name in names)
        return next((self._sizes(value) for value in found if isinstance(value, Node)), None)

    def shapes(self, name: str) -> list[Shape]:
        return [self._sizes(value) for value in self._arguments[name] if isinstance(value, Node)]

    def value(self, name: str) -> Any:
        found = self._arguments.get(name)
        return None if isinstance(found, Node) else found

    @property
    def result(self) -> Shape:
        return self._sizes(self._node)


def broadcast(*shapes: Shape) -> Shape:
    """The shape that these shapes broadcast to: of each axis the size that is not one."""
    length = max(map(len, shapes))
    padded = [(1,) * (length - len(shape)) + shape for shape in shapes]
    return tuple(next((size for size in axis if dense(size) != 1), axis[0]) for axis in zip(*padded, strict=True))


def amount(sizes: Sequence[int | Extent]) -> int:
    """The product of the sizes with everything kept."""
    return prod(map(dense, sizes))
