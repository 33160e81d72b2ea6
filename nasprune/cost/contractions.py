"""Products of tensors with each other: matrix products of any kind, einsum and attention.

Where nothing is summed, a product is element-wise and counts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from nasprune.cost.calls import Call, broadcast
from nasprune.cost.counts import Count, Formula
from nasprune.cost.sizes import Extent, Product, dense

QUIET = ("mm", "dot", "vdot", "mv", "linalg_vecdot", "cdist")
"""Operators whose results are no activations: fvcore says so of `mm`, and the others are like it."""


def _linear(call: Call) -> Count:
    flops = Product.of(*call.given("input"), *call.given("weight")[:-1])
    return Count("linear", (flops,), (Product.of(*call.result),))


def _matmul(left: str, right: str) -> Formula:
    """Matrix products with broadcasting; vectors stand for a row on the left and for a column on the right."""

    def formula(call: Call) -> Count:
        one, two = call.given(left, "input"), call.given(right, "other")
        rows, columns = one[-2:-1], two[-1:] if len(two) > 1 else ()
        flops = Product.of(*broadcast(one[:-2], two[:-2]), *rows, one[-1], *columns)
        return Count(call.operator, (flops,), _results(call))

    return formula


def _inner(call: Call) -> Count:
    one, two = call.given("self"), call.given("other")
    flops = (Product.of(*one, *two[:-1]),) if one and two else ()
    return Count(call.operator, flops, _results(call))


def _dot(call: Call) -> Count:
    one, two = call.given("self", "x"), call.given("tensor", "other", "y")
    return Count(call.operator, (Product.of(*broadcast(one, two)),))


def _tensordot(call: Call) -> Count:
    one, two = call.given("self"), call.given("other")
    summed = {axis % len(two) for axis in call.value("dims_other")} if two else set()
    flops = (Product.of(*one, *(size for axis, size in enumerate(two) if axis not in summed)),) if summed else ()
    return Count(call.operator, flops, _results(call))


def _cdist(call: Call) -> Count:
    one, two = call.given("x1"), call.given("x2")
    return Count(call.operator, (Product.of(*broadcast(one[:-2], two[:-2]), one[-2], two[-2], one[-1]),))


def _bilinear(call: Call) -> Count:
    """First the sum over the first input's features, then that over the second's."""
    *batch, _ = call.given("input1")
    out, first, second = call.given("weight")
    flops = (Product.of(*batch, out, first, second), Product.of(*batch, out, second))
    return Count(call.operator, flops, _results(call))


def _attention(call: Call) -> Count:
    """Queries times keys, then weights times values; a causal mask saves nothing, as in torch's own counter."""
    query, key, value = call.given("query"), call.given("key"), call.given("value")
    heads = query[:-2]  # with grouped queries the keys have fewer heads, each used by several
    batch = broadcast(heads, key[:-2]) if not call.value("enable_gqa") else heads
    queries, keys = query[-2], key[-2]
    flops = (Product.of(*batch, queries, keys, query[-1]), Product.of(*batch, queries, keys, value[-1]))
    return Count(call.operator, flops, _results(call))


def _einsum(call: Call) -> Count:
    """Operands are multiplied from left to right, as torch does without opt_einsum.

    Of each step every combination of the indices counts one, where an index is summed with it: fvcore takes these
    numbers from numpy's estimate, rounded to four digits.
    """
    terms, output, sizes = _indices(call)
    flops = []
    left = set(terms[0])
    for place, right in enumerate(terms[1:], 1):
        later = output.union(*terms[place + 1 :])
        both = {i for i in left | right if i in later or (i in left and i in right)}  # the others are summed before
        if both - later:
            flops.append(Product.of(*(sizes[i] for i in both)))
        left = both & later
    return Count("einsum", tuple(flops), _results(call))


def _indices(call: Call) -> tuple[list[frozenset[str]], frozenset[str], dict[str, int | Extent]]:
    """The indices of each operand and of the result, and their sizes; axes under an ellipsis have numbers as names."""
    shapes = call.shapes("tensors")
    inputs, arrow, output = call.value("equation").replace(" ", "").partition("->")
    terms: list[list[str]] = []
    sizes: dict[str, int | Extent] = {}
    for text, shape in zip(inputs.split(","), shapes, strict=True):
        before, dots, after = text.partition("...")
        hidden = len(shape) - len(before) - len(after)
        term = [*before, *(str(-axis) for axis in range(hidden, 0, -1)), *after] if dots else [*before]
        for index, size in zip(term, shape, strict=True):
            if index not in sizes or dense(sizes[index]) == 1:
                sizes[index] = size
        terms.append(term)
    named = [index for term in terms for index in term]
    if arrow:
        kept = {*output.replace("...", ""), *(index for index in named if "..." in output and len(index) > 1)}
    else:
        kept = {index for index in named if len(index) > 1 or named.count(index) == 1}
    return [frozenset(term) for term in terms], frozenset(kept), sizes


def _results(call: Call) -> tuple[Product, ...]:
    return () if call.operator in QUIET else (Product.of(*call.result),)


CONTRACTIONS: Mapping[str, Formula] = {
    "linear": _linear,
    **dict.fromkeys(("matmul", "linalg_matmul", "mm", "bmm"), _matmul("self", "mat2")),
    "mv": _matmul("self", "vec"),
    **dict.fromkeys(("addmm", "_addmm_activation"), _matmul("mat1", "mat2")),
    "addmv": _matmul("mat", "vec"),
    **dict.fromkeys(("baddbmm", "addbmm"), _matmul("batch1", "batch2")),
    "inner": _inner,
    **dict.fromkeys(("dot", "vdot", "linalg_vecdot"), _dot),
    "tensordot": _tensordot,
    "cdist": _cdist,
    "bilinear": _bilinear,
    "scaled_dot_product_attention": _attention,
    "einsum": _einsum,
}
