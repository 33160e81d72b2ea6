"""Genotypes come back from every format they are written in, and no text of theirs is ever run."""

from __future__ import annotations

from collections import namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasprune.errors import InputError, UnknownNameError
from nasprune.supernet.genotype import codecs
from nasprune.supernet.genotype.genotype import Gene, Genotype
from tests.supernet.genotypes import OPS, PUBLISHED, darts

V2 = PUBLISHED["darts_v2"]
V2_TEXT = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1), "
    "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"


@st.composite
def cells(draw):
    """Two different edges into each of four nodes."""
    genes = []
    for target in range(2, 6):
        for source in draw(st.permutations(range(target)))[:2]:
            genes.append(Gene(draw(st.sampled_from(sorted(OPS.values()))), source, target))
    return tuple(genes)


@st.composite
def ragged(draw):
    """Any operations on any edges, FairDARTS' genotypes."""
    edges = st.integers(2, 5).flatmap(lambda target: st.tuples(st.integers(0, target - 1), st.just(target)))
    found = draw(st.lists(st.tuples(st.sampled_from(sorted(OPS.values())), edges), max_size=9, unique=True))
    return tuple(Gene(op, *edge) for op, edge in sorted(found, key=lambda item: item[1][1]))


nodes = st.just((2, 3, 4, 5))
genotypes = st.builds(
    lambda n, r, c: Genotype({"normal": n, "reduce": r}, {"normal": c, "reduce": c}), cells(), cells(), nodes
)
fair = st.builds(
    lambda n, r, c: Genotype({"normal": n, "reduce": r}, {"normal": c, "reduce": c}), ragged(), ragged(), nodes
)
sixes = st.lists(st.integers(0, 4), min_size=6, max_size=6)


@given(genotypes)
def test_darts_genotypes_come_back_from_every_format(genotype):
    assert codecs.from_darts(codecs.to_darts(genotype)) == genotype
    assert codecs.from_nni(codecs.to_nni(genotype)) == genotype
    assert codecs.from_mmrazor(codecs.to_mmrazor(genotype)) == genotype
    assert codecs.from_json(codecs.to_json(genotype)) == genotype
    for text in (codecs.to_darts(genotype), codecs.to_mmrazor(genotype), codecs.to_json(genotype)):
        assert codecs.parse(text) == genotype
    assert codecs.parse(repr(codecs.to_nni(genotype))) == genotype


@given(fair)
def test_genotypes_with_any_number_of_operations_come_back(genotype):
    assert codecs.from_darts(codecs.to_darts(genotype)) == genotype
    assert codecs.parse(codecs.to_json(genotype)) == genotype


@given(sixes)
def test_nasbench201_cells_come_back_from_every_format(six):
    genotype = codecs.from_nb201(six)
    assert codecs.to_nb201_numbers(genotype) == tuple(six)
    assert codecs.from_nb201(codecs.to_nb201(genotype)) == genotype
    assert codecs.from_naslib(codecs.to_naslib(genotype)) == genotype
    assert codecs.from_nni(codecs.to_nni(genotype)) == genotype
    assert codecs.parse(codecs.to_nb201(genotype)) == genotype
    assert codecs.parse(codecs.to_json(genotype)) == genotype


@given(st.text(max_size=200))
def test_random_text_is_refused(text):
    with pytest.raises(InputError):
        codecs.parse(text)


@pytest.mark.parametrize("prefix", ["", "DARTS_V2 = ", "genotypes."])
def test_the_authors_text(prefix):
    assert codecs.parse(prefix + V2_TEXT) == V2


def test_the_same_genotype_as_a_named_tuple_a_mapping_and_lists():
    parts = {
        "normal": [[(gene.op, gene.source) for gene in V2.cells["normal"] if gene.target == n] for n in (2, 3, 4, 5)],
        "normal_concat": range(2, 6),
        "reduce": [[gene.op, gene.source] for gene in V2.cells["reduce"]],
        "reduce_concat": [2, 3, 4, 5],
    }
    assert codecs.from_darts(namedtuple("Genotype", parts)(**parts)) == V2
    assert codecs.from_darts(parts) == V2
    assert codecs.from_darts(list(parts.values())) == V2
    assert codecs.from_darts({"normal": parts["normal"], "reduce": parts["reduce"]}) == V2
    assert codecs.parse(f"Genotype({parts['normal']!r}, range(2, 6), {parts['reduce']!r}, list(range(2, 6)))") == V2
    assert hash(codecs.from_darts(parts)) == hash(V2)


def test_triples_name_the_node_before_the_input():
    text = (
        "Genotype(normal=[('sep_conv_3x3', 2, 0), ('max_pool_3x3', 3, 0), ('sep_conv_3x3', 4, 0)], "
        "normal_concat=[2, 3, 4], reduce=[('skip_connect', 5, 1)], reduce_concat=range(2, 6))"
    )
    genotype = codecs.parse(text)
    assert genotype.cells["normal"][2] == Gene("sep_conv_3x3", 0, 4)
    assert genotype.cells["reduce"] == (Gene("skip_connect", 1, 5),)
    assert genotype.concat == {"normal": (2, 3, 4), "reduce": (2, 3, 4, 5)}


def test_the_numberings_of_nasbench201():
    genotype = codecs.from_nb201(BEST)
    assert codecs.to_nb201(genotype) == BEST
    assert codecs.to_nb201_numbers(genotype) == (3, 3, 3, 1, 3, 2)
    assert codecs.to_naslib(genotype) == (2, 2, 0, 2, 2, 3)
    assert codecs.to_nni(genotype)["cell/2_3"] == "conv_1x1"


def test_nni_names():
    choices = codecs.to_nni(V2)
    assert choices["normal/op_5_1"] == "dil_conv_3x3"
    assert choices["normal/input_5_1"] == [2]
    plain = {key: value[0] if isinstance(value, list) else value for key, value in choices.items()}
    assert codecs.from_nni(plain) == V2


def test_mmrazor_names():
    text = codecs.to_mmrazor(Genotype({"normal": (Gene("none", 0, 2), Gene("sep_conv_3x3", 1, 2))}))
    assert text == (
        "normal_n2:\n  chosen:\n  - normal_n2_p0\n  - normal_n2_p1\n"
        "normal_n2_p0:\n  chosen:\n  - zero\nnormal_n2_p1:\n  chosen:\n  - sep_conv_3x3\n"
    )
    assert codecs.from_mmrazor(text).cells["normal"][0].op == "none"


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').mkdir('{folder}')",
        "Genotype(normal=__import__('os').mkdir('{folder}'), normal_concat=[], reduce=[], reduce_concat=[])",
        "Genotype(normal=[(__import__('os').mkdir('{folder}'), 0)], normal_concat=[2], reduce=[], reduce_concat=[])",
        "Genotype(normal=[], normal_concat=range(__import__('os').mkdir('{folder}')), reduce=[], reduce_concat=[])",
        "Genotype(normal=[x for x in [__import__('os').mkdir('{folder}')]], normal_concat=[], reduce=[])",
        "(lambda: __import__('os').mkdir('{folder}'))().Genotype()",
        "Genotype(**__import__('os').mkdir('{folder}'))",
        "import os; os.mkdir('{folder}')",
        "!!python/object/apply:os.mkdir ['{folder}']",
        "normal_n2: !!python/object/apply:os.mkdir ['{folder}']",
        "|__import__('os').mkdir('{folder}')~0|+|none~0|none~1|+|none~0|none~1|none~2|",
        "{{\"cells\": \"__import__('os').mkdir('{folder}')\"}}",
        "{{'normal/op_2_0': __import__('os').mkdir('{folder}')}}",
    ],
)
def test_code_is_refused_and_not_run(text, tmp_path):
    folder = tmp_path / "made"
    with pytest.raises(InputError):
        codecs.parse(text.format(folder=folder))
    assert not folder.exists()


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(normal=[], normal_concat=range(10**9), reduce=[], reduce_concat=[])",
        f"Genotype(normal=[], normal_concat=range({10**40}), reduce=[], reduce_concat=[])",
        "(" * 15_000,
        "-" * 15_000 + "1",
        "[" * 15_000,
        '{"cells":' * 2_000,
        "x" * 1_000_000,
        "normal_n2: " + "[" * 5_000,
        "normal_n2: 2001-99-99",
        "normal_n2: !!timestamp x",
    ],
)
def test_texts_that_would_take_all_memory_are_refused(text):
    with pytest.raises(InputError):
        codecs.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Genotype(normal=[('a', 0)], normal_concat=[2], reduce=[], reduce_concat=[2])", "two operations for each"),
        ("Genotype(normal=[('a', 2), ('a', 0)], normal_concat=[2], reduce=[], reduce_concat=[2])", "earlier node"),
        ("Genotype(normal=[('a', 0, 1, 2)], normal_concat=[2], reduce=[], reduce_concat=[2])", "pairs"),
        ("Genotype(normal=[('a', 0), ('b', True)], normal_concat=[2], reduce=[], reduce_concat=[2])", "whole number"),
        ("Genotype(normal=[], normal_concat=[2])", "the parts"),
        ("|none~0|+|none~0|none~1|", "each of the edges"),
        ("{'normal/op_2_0': 'skip_connect'}", "both an operation and an input"),
        ("{'layer/op': 'skip_connect'}", "expected keys like"),
        ("normal_n2:\n  chosen: [reduce_n2_p0]", "edges of 'normal_n2'"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    with pytest.raises(InputError, match=message):
        codecs.parse(text)


def test_cells_that_a_format_cannot_hold_are_refused():
    with pytest.raises(InputError, match="NAS-Bench-201 has the cells cell"):
        codecs.to_nb201(V2)
    with pytest.raises(InputError, match="DARTS has the cells"):
        codecs.to_darts(codecs.from_nb201(BEST))
    with pytest.raises(UnknownNameError, match="sep_conv_3x3"):
        codecs.to_nb201(Genotype({"cell": (Gene("sep_conv_3x3", 0, 1),)}))
    with pytest.raises(InputError, match="six numbers"):
        codecs.from_nb201([0, 1, 2, 3, 4, 5])


def test_published_genotypes_have_two_operations_for_each_node():
    assert all(codecs.parse(codecs.to_darts(genotype)) == genotype for genotype in PUBLISHED.values())
    assert darts("s3@0 s3@1", "").cells["reduce"] == ()
