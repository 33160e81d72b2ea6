"""Genotypes as other tools write them: read without running anything, and written so that those tools can read them.

DARTS text is parsed as a Python expression of which only literals, `range` of numbers and one outer call are accepted;
no code in it ever runs, whatever it says. NNI names some operations and all choices otherwise, NASLib and the tables of
NAS-Bench-201 number the operations, MMRazor writes YAML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from nasprune.common.fields import shown
from nasprune.errors import InputError, UnknownNameError
from nasprune.supernet.genotype.genotype import Gene, Genotype
from nasprune.supernet.genotype.literals import bounded, expression, number, numbers, plain, word

KINDS = ("normal", "reduce")

NB201_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NB201_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
NASLIB_OPS = ("skip_connect", "none", "nor_conv_3x3", "nor_conv_1x1", "avg_pool_3x3")
NASLIB_EDGES = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
NNI_OPS = {"nor_conv_1x1": "conv_1x1", "nor_conv_3x3": "conv_3x3"}
MMRAZOR_OPS = {"none": "zero"}

_NB201_NODE = re.compile(r"([A-Za-z_][\w.]*)~(\d)")
_NNI_KEY = re.compile(r"(\w+)/(op|input)_(\d{1,3})_(\d{1,3})")
_NNI_EDGE = re.compile(r"(\w+)/(\d{1,3})_(\d{1,3})")
_MMRAZOR_NODE = re.compile(r"(\w+?)_n(\d{1,3})")


def parse(text: str) -> Genotype:
    """A genotype in whichever of the known texts it is: DARTS, NAS-Bench-201, JSON of this package or of NNI, YAML.

    Raises:
        InputError: it is none of them; nothing in the text is run.
    """
    stripped = bounded(text).strip()
    if stripped.startswith("|"):
        return from_nb201(stripped)
    if stripped.startswith("{"):
        found = plain(_literal_or_json(stripped), "a genotype")
        if isinstance(found, dict) and "cells" in found:
            return _from_record(found)
        if isinstance(found, dict) and any("/" in str(key) for key in found):
            return from_nni(found)
        return from_darts(found)
    if re.search(r"^\w+_n\d+:", stripped, re.MULTILINE):
        return from_mmrazor(stripped)
    return from_darts(stripped)


def from_darts(source: object) -> Genotype:
    """The genotype that DARTS and its descendants write.

    Args:
        source: the text `Genotype(normal=[...], normal_concat=range(2, 6), reduce=[...], reduce_concat=...)`, with or
            without `NAME =` before it, or that namedtuple, a mapping or a sequence of the four parts. Operations are
            pairs (op, input), two for each node, flat or in one list for each node; or triples (op, node, input) as
            FairDARTS writes them (Chu et al. 2020, arXiv:1911.12126), as many for each node as there are.

    Raises:
        InputError: it is none of that; nothing in the text is run.
    """
    value = plain(expression(source), "a genotype") if isinstance(source, str) else source
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 4:
        value = dict(zip(("normal", "normal_concat", "reduce", "reduce_concat"), value, strict=True))
    if not isinstance(value, Mapping):
        raise InputError(f"expected Genotype(normal=..., normal_concat=..., reduce=..., ...), got {shown(source)}")
    kinds = [str(key) for key in value if not str(key).endswith("_concat")]
    if set(kinds) != set(KINDS):
        raise InputError(
            f"expected the parts normal, normal_concat, reduce and reduce_concat, got {shown(list(value)[:6])}"
        )
    cells = {kind: _genes(value[kind], kind) for kind in KINDS}
    concat = {
        kind: _all_nodes(cells[kind]) if given is None else numbers(given, f"{kind}_concat")
        for kind in KINDS
        for given in (value.get(f"{kind}_concat"),)
    }
    return Genotype(cells, concat)


def to_darts(genotype: Genotype) -> str:
    """One line of Python that DARTS' code reads, without a name before it.

    Where every node has two operations they are pairs, else FairDARTS' triples.

    Raises:
        InputError: the cells are not "normal" and "reduce".
    """
    _expect(genotype, KINDS, "DARTS")
    parts = []
    for kind in KINDS:
        genes = genotype.cells[kind]
        targets = [gene.target for gene in genes]
        pairs = len(genes) % 2 == 0 and targets == [2 + place // 2 for place in range(len(genes))]
        items = [(gene.op, gene.source) if pairs else (gene.op, gene.target, gene.source) for gene in genes]
        parts.append(f"{kind}={items!r}, {kind}_concat={list(genotype.concat.get(kind, ()))!r}")
    return f"Genotype({', '.join(parts)})"


def from_nb201(source: str | Sequence[int]) -> Genotype:
    """A NAS-Bench-201 cell.

    Args:
        source: `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`, or six numbers into `NB201_OPS` in the order of `NB201_EDGES`.

    Raises:
        InputError: it is neither. UnknownNameError: an operation is not of the space.
    """
    if not isinstance(source, str):
        return _from_numbers(source, NB201_OPS, NB201_EDGES)
    genes: list[Gene] = []
    for target, node in enumerate(bounded(source).strip().split("+"), start=1):
        for item in node.strip("|").split("|"):
            match = _NB201_NODE.fullmatch(item)
            if match is None:
                raise InputError(f"expected |op~0|+|op~0|op~1|+|op~0|op~1|op~2|, got {shown(source)}")
            genes.append(Gene(match[1], int(match[2]), target))
    if tuple((gene.source, gene.target) for gene in genes) != NB201_EDGES:
        raise InputError(f"expected one operation on each of the edges {NB201_EDGES}, got {shown(source)}")
    for gene in genes:
        if gene.op not in NB201_OPS:
            raise UnknownNameError("operation of NAS-Bench-201", gene.op, NB201_OPS)
    return Genotype({"cell": tuple(genes)})


def to_nb201(genotype: Genotype) -> str:
    """`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`; edges without an operation are `none`.

    Raises:
        InputError: the genotype is no cell of NAS-Bench-201.
    """
    ops = _nb201_ops(genotype)
    nodes = ([f"{ops[edge]}~{edge[0]}" for edge in NB201_EDGES if edge[1] == target] for target in (1, 2, 3))
    return "+".join(f"|{'|'.join(node)}|" for node in nodes)


def to_nb201_numbers(genotype: Genotype) -> tuple[int, ...]:
    """Six numbers into `NB201_OPS`, in the order of `NB201_EDGES`: how tables of the benchmark index their rows.

    Raises:
        InputError: the genotype is no cell of NAS-Bench-201.
    """
    ops = _nb201_ops(genotype)
    return tuple(NB201_OPS.index(ops[edge]) for edge in NB201_EDGES)


def from_naslib(given: Sequence[int]) -> Genotype:
    """A NAS-Bench-201 cell by NASLib's numbers: into `NASLIB_OPS`, in the order of `NASLIB_EDGES`.

    Raises:
        InputError: these are not six numbers below five.
    """
    return _from_numbers(given, NASLIB_OPS, NASLIB_EDGES)


def to_naslib(genotype: Genotype) -> tuple[int, ...]:
    """Six numbers into `NASLIB_OPS`, in the order of `NASLIB_EDGES`.

    Raises:
        InputError: the genotype is no cell of NAS-Bench-201.
    """
    ops = _nb201_ops(genotype)
    return tuple(NASLIB_OPS.index(ops[edge]) for edge in NASLIB_EDGES)


def from_nni(choices: Mapping[str, object]) -> Genotype:
    """What an NNI 3.0 strategy exports from its DARTS or NAS-Bench-201 space.

    Args:
        choices: `{"normal/op_2_0": "sep_conv_3x3", "normal/input_2_0": [0], ...}` or `{"cell/0_1": "conv_3x3", ...}`.

    Raises:
        InputError: a key or value has another form, or an operation has no input or an input no operation.
    """
    ours = {theirs: name for name, theirs in NNI_OPS.items()}
    genes: dict[str, list[Gene]] = {}
    slots: dict[tuple[str, int, int], dict[str, object]] = {}
    for key, value in choices.items():
        if match := _NNI_EDGE.fullmatch(str(key)):
            name = word(value, key)
            genes.setdefault(match[1], []).append(Gene(ours.get(name, name), int(match[2]), int(match[3])))
        elif match := _NNI_KEY.fullmatch(str(key)):
            slots.setdefault((match[1], int(match[3]), int(match[4])), {})[match[2]] = value
        else:
            raise InputError(f"expected keys like 'normal/op_2_0', 'normal/input_2_0' or 'cell/0_1', got {shown(key)}")
    for (kind, target, slot), found in sorted(slots.items()):
        if set(found) != {"op", "input"}:
            raise InputError(
                f"expected both an operation and an input for '{kind}/…_{target}_{slot}', got {shown(found)}"
            )
        sources = numbers([found["input"]] if isinstance(found["input"], int) else found["input"], f"{kind}/input")
        for source in sources:
            genes.setdefault(kind, []).append(Gene(word(found["op"], f"{kind}/op"), source, target))
    if not genes:
        raise InputError("expected the choices of a DARTS or NAS-Bench-201 space, got none")
    concat = {kind: _all_nodes(items) for kind, items in genes.items() if kind in KINDS}
    return Genotype({kind: tuple(items) for kind, items in genes.items()}, concat)


def to_nni(genotype: Genotype) -> dict[str, object]:
    """The choices under NNI's names, for its `freeze` and `load_searched_model`; all nodes are concatenated there."""
    choices: dict[str, object] = {}
    for kind, genes in genotype.cells.items():
        if kind not in KINDS:
            choices |= {f"{kind}/{g.source}_{g.target}": NNI_OPS.get(g.op, g.op) for g in genes}
            continue
        for target, slot, gene in _slots(genes):
            choices[f"{kind}/op_{target}_{slot}"] = gene.op
            choices[f"{kind}/input_{target}_{slot}"] = [gene.source]
    return choices


def from_mmrazor(text: str) -> Genotype:
    """The YAML of an MMRazor DARTS subnet: `normal_n2: {chosen: [normal_n2_p0, ...]}`, `normal_n2_p0: {chosen: [op]}`.

    Raises:
        InputError: the YAML is not that; tags that would make objects are refused.
    """
    try:
        found = plain(yaml.safe_load(bounded(text)), "the YAML of an MMRazor subnet")
    except InputError:
        raise
    except Exception as error:  # a malformed date or number raises whatever its constructor does
        raise InputError(f"expected the YAML of an MMRazor subnet, got {shown(text)}") from error
    if not isinstance(found, dict):
        raise InputError(f"expected a mapping like 'normal_n2: {{chosen: [normal_n2_p0]}}', got {shown(text)}")
    ours = {theirs: name for name, theirs in MMRAZOR_OPS.items()}
    genes: dict[str, list[Gene]] = {}
    for key in found:
        match = _MMRAZOR_NODE.fullmatch(str(key))
        for edge in _chosen(found, key) if match is not None else ():
            source = edge.removeprefix(f"{key}_p")
            if match is None or not source.isdecimal() or len(source) > 3:
                raise InputError(f"expected edges of {shown(key)} like '{key}_p0', got {shown(edge)}")
            for op in _chosen(found, edge):
                genes.setdefault(match[1], []).append(Gene(ours.get(op, op), int(source), int(match[2])))
    if not genes:
        raise InputError(f"expected nodes like 'normal_n2' among the keys, got {shown(list(found))}")
    return Genotype(
        {kind: tuple(items) for kind, items in genes.items()},
        {kind: _all_nodes(items) for kind, items in genes.items()},
    )


def to_mmrazor(genotype: Genotype) -> str:
    """YAML for MMRazor's DARTS subnets. Those keep a batch norm after pools that DARTS drops: not the same network."""
    found: dict[str, dict[str, list[str]]] = {}
    for kind, genes in genotype.cells.items():
        for gene in genes:
            node = f"{kind}_n{gene.target}"
            edge = f"{node}_p{gene.source}"
            edges = found.setdefault(node, {"chosen": []})["chosen"]
            if edge not in edges:
                edges.append(edge)
            found.setdefault(edge, {"chosen": []})["chosen"].append(MMRAZOR_OPS.get(gene.op, gene.op))
    return str(yaml.safe_dump(found, sort_keys=False))


def to_json(genotype: Genotype) -> str:
    """One line: `{"cells": {kind: [[op, source, target], ...]}, "concat": {kind: [node, ...]}}`."""
    cells = {kind: [[g.op, g.source, g.target] for g in genes] for kind, genes in genotype.cells.items()}
    return json.dumps({"cells": cells, "concat": {kind: list(nodes) for kind, nodes in genotype.concat.items()}})


def from_json(text: str) -> Genotype:
    """What `to_json` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        found = plain(json.loads(bounded(text)), "a genotype")
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected the JSON of a genotype, got {shown(text)}") from error
    return _from_record(found)


def _from_record(found: object) -> Genotype:
    try:
        cells, concat = found["cells"], found.get("concat", {})  # type: ignore[index, attr-defined]
        genes = {str(kind): tuple(_triple(item, kind) for item in items) for kind, items in cells.items()}
        return Genotype(genes, {str(kind): numbers(nodes, "concat") for kind, nodes in concat.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f'expected {{"cells": {{kind: [[op, source, target], ...]}}}}, got {shown(found)}') from error


def _triple(item: Any, kind: str) -> Gene:
    op, source, target = item if len(item) == 3 else (None, None, None)
    return Gene(word(op, kind), number(source, kind), number(target, kind))


def _genes(items: object, kind: str) -> tuple[Gene, ...]:
    if not isinstance(items, Sequence) or isinstance(items, str):
        raise InputError(f"expected a list of operations of the {kind!r} cell, got {shown(items)}")
    nested = bool(items) and all(
        isinstance(item, list | tuple) and not (item and isinstance(item[0], str)) for item in items
    )
    placed = (
        [(2 + node, item) for node, group in enumerate(items) for item in group]
        if nested
        else [(2 + place // 2, item) for place, item in enumerate(items)]
    )
    sizes = {len(item) if isinstance(item, list | tuple) else 0 for _, item in placed}
    if not sizes <= {2} and sizes != {3}:
        raise InputError(f"expected pairs (op, input) or triples (op, node, input) in {kind!r}, got {shown(items)}")
    if sizes == {3}:
        triples = [item for _, item in placed]
        return tuple(Gene(word(op, kind), number(source, kind), number(node, kind)) for op, node, source in triples)
    if not nested and len(placed) % 2:
        raise InputError(f"expected two operations for each node of {kind!r}, got {len(placed)} in all")
    return tuple(Gene(word(op, kind), number(source, kind), target) for target, (op, source) in placed)


def _literal_or_json(text: str) -> Any:
    try:
        return json.loads(bounded(text))
    except (ValueError, RecursionError):
        return expression(text)


def _from_numbers(given: Sequence[int], ops: Sequence[str], edges: Iterable[tuple[int, int]]) -> Genotype:
    six = numbers(given, "operations")
    if len(six) != 6 or max(six) >= len(ops):
        raise InputError(f"expected six numbers from 0 to {len(ops) - 1}, got {six}")
    by_edge = dict(zip(edges, six, strict=True))
    return Genotype({"cell": tuple(Gene(ops[by_edge[edge]], *edge) for edge in NB201_EDGES)})


def _nb201_ops(genotype: Genotype) -> dict[tuple[int, int], str]:
    _expect(genotype, ("cell",), "NAS-Bench-201")
    found = dict.fromkeys(NB201_EDGES, "none")
    genes = genotype.cells["cell"]
    for gene in genes:
        if (gene.source, gene.target) not in found:
            raise InputError(f"NAS-Bench-201 has no edge {gene.source} -> {gene.target}: {NB201_EDGES}")
        if gene.op not in NB201_OPS:
            raise UnknownNameError("operation of NAS-Bench-201", gene.op, NB201_OPS)
        found[gene.source, gene.target] = gene.op
    if len({(gene.source, gene.target) for gene in genes}) < len(genes):
        raise InputError("NAS-Bench-201 has one operation on each edge; the genotype has several on one")
    return found


def _slots(genes: Iterable[Gene]) -> Iterable[tuple[int, int, Gene]]:
    count: dict[int, int] = {}
    for gene in genes:
        count[gene.target] = count.get(gene.target, -1) + 1
        yield gene.target, count[gene.target], gene


def _chosen(found: Mapping[Any, Any], key: Any) -> list[str]:
    entry = found.get(key)
    chosen = entry.get("chosen") if isinstance(entry, dict) else entry
    chosen = [chosen] if isinstance(chosen, str) else chosen
    if not isinstance(chosen, list) or not all(isinstance(item, str) for item in chosen):
        raise InputError(f"expected {shown(key)} to be {{chosen: [names]}}, got {shown(entry)}")
    return chosen


def _all_nodes(genes: Iterable[Gene]) -> tuple[int, ...]:
    return tuple(range(2, max([5, *(gene.target for gene in genes)]) + 1))


def _expect(genotype: Genotype, kinds: Sequence[str], where: str) -> None:
    if set(genotype.cells) != set(kinds):
        raise InputError(f"{where} has the cells {', '.join(kinds)}, the genotype has {sorted(genotype.cells)}")
