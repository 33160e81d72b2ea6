"""Widths that a model records for whoever builds on it."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from nasprune import build, search, trace
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.width_records import stale

IMAGE = torch.randn(1, 3, 8, 8)


class Stage(nn.Module):
    def __init__(self, reads: int, gives: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels = reads, gives
        self.conv = nn.Conv2d(reads, gives, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).relu()


class Backbone(nn.Module):
    """With records as those of timm. shift: whether the output depends on one of them."""

    def __init__(self, *, shift: bool = False) -> None:
        super().__init__()
        self.first, self.second = Stage(3, 8), Stage(8, 16)
        self.num_features = 16
        self.out_dim = 16
        self.feature_info = [{"num_chs": 8, "module": "first"}, {"num_chs": 16, "module": "second"}]
        self.config = SimpleNamespace(hidden_sizes=[8, 16], image_size=8)
        self.head = nn.Linear(16, 4)
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x)).mean((2, 3))
        return self.head(x * self.num_features if self.shift else x)

    def reset_classifier(self, classes: int) -> None:
        self.head = nn.Linear(self.num_features, classes)


def halved(net: nn.Module):
    graph = trace(net, IMAGE)
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    return build(net, graph, plan), graph, plan


def test_a_new_head_fits_the_recorded_width():
    net = Backbone().eval()
    small, _, _ = halved(net)
    small.reset_classifier(7)
    assert small(IMAGE).shape == (1, 7)
    assert small.num_features == 8
    assert [entry["num_chs"] for entry in small.feature_info] == [4, 8]
    assert (small.first.in_channels, small.first.out_channels) == (3, 4)


@pytest.mark.parametrize("name", ["final", "nowhere"])
def test_the_last_feature_is_what_the_head_reads_where_its_module_computes_nothing(name):
    net = Backbone().eval()
    net.final = nn.Identity()
    net.feature_info[1]["module"] = name
    small, graph, plan = halved(net)
    assert [entry["num_chs"] for entry in small.feature_info] == [4, 8]
    assert not any("feature_info" in one for one in stale(net, graph, plan))
    assert (small.second.in_channels, small.second.out_channels) == (4, 8)
    assert net.num_features == 16
    assert [entry["num_chs"] for entry in net.feature_info] == [8, 16]


def test_a_number_that_the_output_depends_on_is_left_and_named():
    small, graph, plan = halved(Backbone(shift=True).eval())
    assert small.num_features == 16
    assert "`num_features` = 16" in stale(Backbone(shift=True), graph, plan)


def test_what_is_in_doubt_is_named():
    net = Backbone().eval()
    _, graph, plan = halved(net)
    named = stale(net, graph, plan)
    assert "`out_dim` = 16" in named  # the model gives four numbers: it is not known which 16 are meant
    assert "`config.hidden_sizes[1]` = 16" in named
    assert not any("image_size" in name or "feature_info" in name for name in named)


def test_nothing_is_said_of_what_is_not_cut():
    net = Backbone().eval()
    graph = trace(net, IMAGE)
    assert stale(net, graph, half_plan(graph, [])) == ()


def test_the_report_says_so():
    notes = search(Backbone().eval(), IMAGE, "50%", trials=1).report.notes
    assert any("`config.hidden_sizes[0]` = 8" in note and "set it yourself" in note for note in notes)


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small_050"])
def test_networks_of_timm(name):
    timm = pytest.importorskip("timm")
    net = timm.create_model(name, pretrained=False, num_classes=5).eval()
    graph = trace(net, torch.randn(1, 3, 64, 64))
    small = build(net, graph, half_plan(graph, [group.name for group in graph.free_groups]))
    given = [
        value.shape[1] for value in small.forward_intermediates(torch.randn(1, 3, 64, 64), intermediates_only=True)
    ]
    assert [entry["num_chs"] for entry in small.feature_info] == given
    small.reset_classifier(3)
    assert small(torch.randn(2, 3, 64, 64)).shape == (2, 3)


class Depthwise(nn.Module):
    """As MobileOne's block: fused later from the groups that it records."""

    def __init__(self) -> None:
        super().__init__()
        self.groups = 8
        self.conv = nn.Conv2d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Embedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_dim = 8
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 1), Depthwise(), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(self.stem(x).relu()).mean((2, 3)))


def test_recorded_groups_and_embeddings_follow():
    small, _, _ = halved(Embedding().eval())
    assert small.mix.groups == small.mix.conv.groups == 4
    assert small.embed_dim == small.head.in_features == 4
