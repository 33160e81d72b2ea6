"""What tracing finds, what it refuses, and that it leaves no mark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.errors import InputError, PluginError, TraceError
from nasprune.graph.labels import Labels
from nasprune.graph.rules import OpCall, OpRule
from nasprune.models.nets import resnet20
from nasprune.run.trace import trace
from nasprune.testing import SampleNet, check_op_rule
from tests.graph.joins import C2f
from tests.graph.layers import GroupedConv
from tests.graph.structure import conv

pytestmark = pytest.mark.usefixtures("looked_at_anew")

IMAGE = (1, 3, 8, 8)


def test_groups_say_what_they_touch() -> None:
    graph = trace(SampleNet(), torch.randn(IMAGE))
    stem = graph.group("stem")
    assert stem.width == 16
    assert {(part.param, part.axis) for part in stem.slices if part.role == "out"} >= {("stem.weight", 0)}
    assert ("head.weight", 1) in {(part.param, part.axis) for part in stem.slices if part.role == "in"}
    assert graph.group("head").frozen_because == "the model returns these channels"


def test_partitions_of_grouped_convolutions_and_chunks() -> None:
    graph = trace(GroupedConv(), torch.randn(IMAGE))
    assert graph.group("a").multiple_of == 4
    assert graph.group("a").partitions == ((0, 1), (2, 3), (4, 5), (6, 7))
    halves = trace(C2f(), torch.randn(IMAGE)).group("cv1")
    assert (halves.width, halves.multiple_of) == (16, 2)


def test_networkx_view_is_the_program_and_read_only() -> None:
    graph = trace(SampleNet(), torch.randn(IMAGE))
    assert nx.is_directed_acyclic_graph(graph.nx)
    assert graph.nx.nodes["conv2d"]["module"] == "stem"
    with pytest.raises(nx.NetworkXError):
        graph.nx.add_node("more")


def test_cifar_resnet_with_pad_shortcuts_keeps_its_unpadded_channels_free() -> None:
    graph = trace(resnet20(), torch.randn(1, 3, 32, 32))
    free = {group.name: group.width for group in graph.free_groups}
    assert len(free) == 10
    assert free["conv1"] == 16
    assert all(free[f"layer{s}.{i}.conv1"] == 16 * 2 ** (s - 1) for s in (1, 2, 3) for i in range(3))
    assert len(graph.free_blocks) == 7
    assert all(
        "pad" in group.frozen_because for group in graph.groups if group.frozen_because and group.name != "linear"
    )


class PostActivation(nn.Module):
    """A block that ends in a ReLU but whose input has negative entries; and one that returns a pair."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.block, self.pair, self.head = conv(3, 8), _Block(), _Pair(), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(self.block(self.stem(x)))[0].mean((2, 3)))


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.conv(x)).relu()


class _Pair(_Block):
    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        return x + self.conv(x), None


def test_a_dropped_block_keeps_its_final_relu() -> None:
    torch.manual_seed(0)
    model = PostActivation().eval()
    graph = trace(model, torch.randn(IMAGE))
    plan = nasprune.PrunePlan(graph.signature, drop=("block",))
    small = nasprune.build(model, graph, plan)
    assert nasprune.verify(model, small, graph, plan).ok
    x = model.stem(torch.randn(IMAGE))
    assert torch.equal(small.block(x), x.relu())
    assert not any(True for _ in small.block.parameters())


def test_a_block_that_the_code_needs_is_frozen() -> None:
    blocks = {block.name: block for block in trace(PostActivation(), torch.randn(IMAGE)).blocks}
    assert blocks["block"].free
    assert "more than one tensor" in blocks["pair"].frozen_because


class UnknownOperator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(torch.linalg.matrix_exp(self.a(x))).mean((2, 3)))


def test_an_operator_without_a_rule_freezes_and_is_reported() -> None:
    graph = trace(UnknownOperator(), torch.randn(IMAGE))
    assert "no rule" in graph.group("a").frozen_because
    assert "linalg_matrix_exp" in graph.group("a").frozen_because
    assert list(graph.skipped) == ["linalg_matrix_exp"]
    assert graph.group("b").free


class Exponential(OpRule):
    targets = ("linalg_matrix_exp",)

    def apply(self, call: OpCall) -> Labels:
        return call.labels("self")


def test_a_rule_of_ones_own_frees_it() -> None:
    graph = trace(UnknownOperator(), torch.randn(IMAGE), rules=[Exponential()])
    assert graph.group("a").free
    assert not graph.skipped


class ExponentialThatTiesWrongly(OpRule):
    """Says that the channels come out in reverse order."""

    targets = ("linalg_matrix_exp",)

    def apply(self, call: OpCall) -> Labels:
        return tuple(replace(factor, ids=factor.ids[:, ::-1]) for factor in call.labels("self"))


class ExponentialThatForgetsAnAxis(OpRule):
    targets = ("linalg_matrix_exp",)

    def apply(self, call: OpCall) -> Labels:
        return tuple(replace(factor, ids=factor.ids[0]) for factor in call.labels("self"))


def test_the_public_check_of_op_rules() -> None:
    check_op_rule(Exponential, UnknownOperator(), torch.randn(IMAGE))
    with pytest.raises(PluginError, match="cannot be cut"):
        check_op_rule(ExponentialThatTiesWrongly, UnknownOperator(), torch.randn(IMAGE))
    with pytest.raises(PluginError, match="must broadcast"):
        check_op_rule(ExponentialThatForgetsAnAxis, UnknownOperator(), torch.randn(IMAGE))
    with pytest.raises(PluginError, match="the model runs only"):
        check_op_rule(Exponential, SampleNet(), torch.randn(IMAGE))


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 6)), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(self.backbone(x).mean((2, 3)))
        return y if y.sum() > 0 else -y


def test_what_cannot_be_exported_is_refused_with_place_and_hint(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TraceError, match="scope=") as caught:
        trace(DataDependent(), torch.randn(IMAGE))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_scope_traces_a_part_and_freezes_its_outputs() -> None:
    model = DataDependent()
    graph = trace(model, torch.randn(IMAGE), scope="backbone")
    assert [(group.name, group.free) for group in graph.groups] == [("0", True), ("2", False)]
    plan = nasprune.PrunePlan(graph.signature, {"0": (0, 2, 5)}, scope="backbone")
    small = nasprune.build(model, graph, plan)
    assert small.backbone[0].out_channels == 3
    assert nasprune.verify(model, small, graph, plan).ok


def test_bad_scopes_and_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="top-level ones: backbone, head"):
        trace(DataDependent(), torch.randn(IMAGE), scope="body")
    with pytest.raises(InputError, match=r"does not run on inputs of shape \[1, 4, 8, 8\]"):
        trace(SampleNet(), torch.randn(1, 4, 8, 8))


def test_tracing_leaves_the_model_and_the_generators_alone() -> None:
    model = SampleNet().train()
    model.norm.eval()
    model.stem.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    trace(model, torch.randn(IMAGE, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert model.training
    assert not model.norm.training
    assert not model.stem.weight.requires_grad
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_tracing_twice_gives_the_same_graph() -> None:
    first, second = (trace(SampleNet(), torch.randn(IMAGE)) for _ in range(2))
    assert first.groups == second.groups
    assert first.blocks == second.blocks


class Packed(nn.Module):
    """Rows of different lengths, which torch cannot capture."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x, lengths):
        rows = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return self.head(self.cell(rows)[1][0][0])  # here


def test_what_cannot_be_captured_is_told_with_the_users_line():
    line = next(n for n, text in enumerate(Path(__file__).read_text().splitlines(), 1) if text.endswith("# here"))
    with pytest.raises(nasprune.TraceError, match=rf'test_analysis.py", line {line}, in forward; trace a part'):
        nasprune.trace(Packed().eval(), (torch.randn(2, 5, 3), torch.tensor([5, 2])))
