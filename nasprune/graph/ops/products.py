"""Matrix products and einsum: axes that meet are tied, axes that are summed over are consumed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nasprune.graph.contractions import Contraction, Term, contraction
from nasprune.graph.labels import Factor, Ints, Labels, at, extended
from nasprune.graph.ops.elementwise import merged
from nasprune.graph.rules import OpCall, OpRule

SPECTRAL = (
    "; if a spectral norm does, take it off first with torch.nn.utils.parametrize.remove_parametrizations or "
    "torch.nn.utils.remove_spectral_norm"
)


class Product(OpRule):
    """Zeroing a channel on one side of a sum takes it out of the sum: both sides of it go together.

    Axes that stay pass, and those of several terms that meet are tied. A parameter's axes become the consumers and the
    producers of channels, as those of a linear layer are.
    """

    targets = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "mv", "dot", "vdot")

    def apply(self, call: OpCall) -> Labels:
        formula = contraction(call.node)
        if formula is None:
            return call.give_up(f"{call.where} multiplies vectors{SPECTRAL}")
        own = {term: call.labels_of(term.node) for term in formula.terms}
        result = []
        for letter in dict.fromkeys("".join(term.letters for term in formula.terms)):
            factor = _met(call, formula, own, letter)
            if factor is not None:
                result.append(factor)
        if formula.added is None:
            return tuple(result)
        labels = extended(call.labels_of(formula.added), len(call.shape))
        shape = call.shape_of(formula.added)
        return merged(call, [(tuple(result), call.shape), (labels, (1,) * (len(call.shape) - len(shape)) + shape)])


def _met(call: OpCall, formula: Contraction, own: dict[Term, Labels], letter: str) -> Factor | None:
    """Ties the channels of the axes named `letter`; the factor of the result, `None` where the letter is summed."""
    spanning = [
        term for term in formula.terms if letter in term.letters and call.shape_of(term.node)[term.axis(letter)] > 1
    ]
    known = [(term, factor) for term in spanning if (factor := at(own[term], term.axis(letter))) is not None]
    if not known:
        return None
    if len(known) < len(spanning):
        for _, factor in known:
            call.channels.freeze(factor.ids, f"{call.where} multiplies these channels with an axis of fixed size")
    order = list(dict.fromkeys("".join(term.letters for term in formula.terms)))
    spread = [_over(order, term, _aligned(call, factor, term, formula.output)) for term, factor in known]
    for other in spread[1:]:
        call.channels.tie(spread[0], other)
    stays = letter in formula.output
    for term in spanning:
        call.role(term.node, term.axis(letter), "in" if not stays else "out" if len(spanning) == 1 else "scale")
    ids: Ints = np.broadcast_arrays(*spread)[0]
    if not stays:
        call.channels.consume(ids)
        if all(call.variable(term.node) for term in spanning):
            call.doubt(ids)
        return None
    kept = [order.index(other) for other in formula.output]
    dropped = tuple(i for i in range(len(order)) if i not in kept)
    moved = ids.transpose([*kept, *dropped])
    return Factor(moved.reshape(moved.shape[: len(kept)]), formula.output.index(letter))


def _aligned(call: OpCall, factor: Factor, term: Term, output: str) -> Factor:
    """The factor without index axes that are summed over, so that each index of the rest has channels of its own."""
    ending: Iterable[int] = [axis for axis in factor.index_axes if term.letters[axis] not in output]
    return call.channels.align(factor, ending)


def _over(order: list[str], term: Term, factor: Factor) -> Ints:
    """The factor's ids with one axis for each letter of `order`."""
    places = sorted(range(len(term.letters)), key=lambda axis: order.index(term.letters[axis]))
    shape = [1] * len(order)
    for axis, letter in enumerate(term.letters):
        shape[order.index(letter)] = factor.ids.shape[axis]
    return factor.ids.transpose(places).reshape(shape)


RULES = (Product(),)
