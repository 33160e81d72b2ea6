"""Products that sum over shared axes, spelled as formulas: matrix products of all kinds, and einsum."""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from nasprune.graph.program import arguments, operator, shape_of

PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Term:
    """One factor of a product. letters: a name for each of its axes; equal names mean the same index."""

    node: Node
    letters: str

    def axis(self, letter: str) -> int:
        return self.letters.index(letter)


@dataclass(frozen=True)
class Contraction:
    """A product of terms, summed over the letters that `output` lacks. added: a tensor that is added to the result."""

    terms: tuple[Term, ...]
    output: str
    added: Any = None

    def summed(self, term: Term) -> list[int]:
        """The axes of a term that are summed over."""
        return [axis for axis, letter in enumerate(term.letters) if letter not in self.output]


def contraction(node: Node) -> Contraction | None:
    """The formula of a product of tensors, `None` for forms without one: vectors, diagonals."""
    name, args = operator(node), arguments(node)
    if name == "einsum":
        return _einsum(args["equation"], args["tensors"])
    if name not in PRODUCTS:
        return None
    added: Any = args["self"] if name in ("addmm", "baddbmm") else None
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2"), "matmul": ("self", "other")}
    left, right = (args[key] for key in names.get(name, ("self", "mat2")))
    dims = len(shape_of(left) or ()), len(shape_of(right) or ())
    if min(dims) < 2:
        return None
    batch = string.ascii_lowercase[: max(dims) - 2]
    terms = tuple(
        Term(value, batch[len(batch) - (ndim - 2) :] + own)
        for value, ndim, own in ((left, dims[0], "XY"), (right, dims[1], "YZ"))
    )
    return Contraction(terms, f"{batch}XZ", added)


def _einsum(equation: str, tensors: Sequence[Node]) -> Contraction | None:
    equation = equation.replace(" ", "")
    left, arrow, output = equation.partition("->")
    spelled = left.split(",")
    free = iter(letter for letter in string.ascii_letters if letter not in equation)
    rest = [next(free) for _ in range(max(len(shape_of(node) or ()) for node in tensors))]

    def full(letters: str, ndim: int) -> str:
        """The letters with those of the leading axes in place of an ellipsis."""
        before, dots, after = letters.partition("...")
        count = ndim - len(before) - len(after)
        return before + "".join(rest[len(rest) - count :]) + after if dots and count else before + after

    letters = [full(one, len(shape_of(node) or ())) for one, node in zip(spelled, tensors, strict=True)]
    if any(len(set(one)) < len(one) for one in letters):
        return None
    known = "".join(letters)
    if not arrow:
        output = "".join(sorted(letter for letter in set(known) if known.count(letter) == 1 or letter in rest))
        output = "".join(sorted(output, key=lambda letter: (letter not in rest, letter)))
    elif "..." in output:
        spread = max((sum(letter in rest for letter in one) for one in letters), default=0)
        output = output.replace("...", "".join(rest[len(rest) - spread :] if spread else ""))
    return Contraction(tuple(Term(node, one) for node, one in zip(tensors, letters, strict=True)), output)
