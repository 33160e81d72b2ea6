"""Short trainings that say whether a scorer is right here; training on single paths; what happens where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from nasprune import InputError, OpScorer, Supernet
from nasprune.data import ArrayDataset, load_data
from nasprune.supernet import checked
from nasprune.supernet.score.paths import draw_paths
from nasprune.supernet.train.agreement import Agreement, agreement, renew, stand_alone_losses
from nasprune.supernet.train.training import architecture_of, single_paths, train
from tests.supernet.toys import OPS, Toy, images

pytestmark = pytest.mark.usefixtures("few_digits_for_all", "one_draw")


@pytest.fixture(scope="module")
def data(few_digits_for_all):
    return load_data("digits")


@cache
def toy() -> Supernet:
    """Not to be changed."""
    return Supernet.from_model(
        Toy(),
        images(),
        op_names=OPS,
        group=lambda place: f"cell/{place.index}",
        weights=lambda place: place.net.alphas[place.index],
    )


class By(OpScorer):
    """Given worths, the same for every choice."""

    def __init__(self, *worths: float) -> None:
        self.worths = worths

    def score(self, task):
        return {choice.name: torch.tensor(self.worths) for choice in task.choices}


def test_networks_are_trained_from_new_weights_and_repeat(data):
    structure = toy().structure
    paths = draw_paths(structure.choices, 3, seed=0)
    before = {name: value.clone() for name, value in structure.net.state_dict().items()}
    losses = list(stand_alone_losses(structure, data, paths, steps=5, seed=0))
    with torch.no_grad():
        for parameter in structure.net.cells.parameters():
            parameter.mul_(2)
    again = list(stand_alone_losses(structure, data, paths, steps=5, seed=0))
    structure.net.load_state_dict(before)
    assert losses == pytest.approx(again)
    assert all(0 < loss < 5 for loss in losses)


def test_longer_training_is_better(data):
    structure = toy().structure
    paths = [{choice.name: 3 for choice in structure.choices}]
    short, long = (next(stand_alone_losses(structure, data, paths, steps=n, seed=0)) for n in (1, 30))
    assert long < short


def test_agreement_is_a_correlation_with_its_interval(data):
    structure = toy().structure
    worths = {choice.name: torch.tensor([0.0, 0.0, 1.0, 2.0]) for choice in structure.choices}
    found = agreement(structure, data, worths, networks=8, steps=3, seed=0)
    other = agreement(structure, data, {k: -v for k, v in worths.items()}, networks=8, steps=3, seed=0)
    assert -1 <= found.low <= found.correlation <= found.high <= 1
    assert len(found.networks) == len(found.losses) == 8
    assert other.correlation == pytest.approx(-found.correlation)
    assert found.agrees == (found.low > 0)
    assert not (found.agrees and other.agrees)
    with pytest.raises(InputError, match="at least 5 networks"):
        agreement(structure, data, worths, networks=4, steps=5, seed=0)


def test_renewed_weights_are_others():
    net = Toy()
    before = net.stem.weight.clone()
    renew(net)
    assert not torch.equal(before, net.stem.weight)


def test_training_on_paths_leaves_architecture_weights_and_trains_the_others(data):
    structure = toy().structure
    net = train(
        structure.net,
        data,
        architecture=lambda net: architecture_of(structure, net),
        draw=single_paths(structure, 0),
        epochs=3,
        seed=0,
    )
    assert torch.equal(net.alphas, structure.net.alphas)
    assert not torch.equal(net.cells[0].edges[0][3][1].weight, structure.net.cells[0].edges[0][3][1].weight)
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert "forward" not in vars(net.cells[0].edges[0][3])


def told(correlation: float, count: int = 8):
    paths = tuple(draw_paths(toy().structure.choices, count, seed=0))
    losses = tuple(float(path["cell/0"] == 1) for path in paths)  # the skip of the first edge is bad
    return lambda *_, **__: Agreement(correlation, correlation - 0.2, correlation + 0.2, paths, losses, 60.0)


def test_a_scorer_that_is_right_decides(monkeypatch):
    monkeypatch.setattr(checked, "agreement", told(0.4))
    worths = By(0.0, 0.1, 0.2, 0.9)
    plain = toy().trim("60%", scorer=worths, keep_max=2, data="digits", re_estimate=False)
    found = toy().trim("60%", scorer=worths, keep_max=2, data="digits", check=8, re_estimate=False)
    assert found.choices == plain.choices
    assert "The scorer By agrees with what trains well" in found.report.notes[0]
    assert "+0.40 [+0.20, +0.60] over 8 networks, trained from scratch in 1.0 min" in found.report.notes[0]
    assert found.report.settings["scorer"] == "By"


def test_one_that_is_wrong_is_replaced_by_the_trained_networks(monkeypatch):
    monkeypatch.setattr(checked, "agreement", told(-0.3, 12))
    found = toy().trim("60%", scorer=By(0.0, 0.1, 0.2, 0.9), keep_max=2, data="digits", check=12)
    assert found.report.settings["scorer"] == "trained networks"
    assert "does not agree" in found.report.notes[0]
    assert "ranked by the losses of these 12 networks" in found.report.notes[1]
    scores = found.report.scores["cell/0"]
    assert scores["skip"] == 0 < min(scores["conv1"], scores["conv3"])


def test_and_by_losses_of_single_paths_where_these_are_too_few(monkeypatch):
    monkeypatch.setattr(checked, "agreement", told(-0.3))
    monkeypatch.setattr(checked, "PATH_STEPS", 20)
    supernet = toy()
    found = supernet.trim("60%", scorer=By(0.0, 0.1, 0.2, 0.9), keep_max=2, data="digits", check=8)
    assert found.report.settings["scorer"] == "path_loss"
    assert "losses of single paths" in found.report.notes[1]
    assert "12 networks would be enough" in found.report.notes[2]
    assert set(found.report.scores) == {choice.name for choice in supernet.choices}


def test_a_supernet_that_was_trained_on_paths_is_not_trained_again(monkeypatch):
    monkeypatch.setattr(checked, "agreement", told(-0.3))
    monkeypatch.setattr(checked, "train", None)
    worths = By(0.0, 0.1, 0.2, 0.9)
    found = toy().trim("60%", scorer=worths, keep_max=2, data="digits", check=8, on_paths=True)
    assert found.report.settings["scorer"] == "path_loss"
    assert "of this very supernet" in found.report.notes[1]
    for name, scores in toy().score("path_loss", data="digits").items():
        assert found.report.scores[name] == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize(
    ("part", "labels", "message"),
    [
        ("validation", [3], "two validation images at least"),
        ("validation", [0.5] * 8, "class numbers, one for each image"),
        ("train", [0.5] * 8, "class numbers, one for each image"),
        ("train", [[[1, 2], [3, 4]]] * 8, "class numbers, one for each image"),
    ],
)
def test_what_networks_cannot_be_checked_by_is_said(data, part, labels, message):
    given = ArrayDataset(torch.randn(len(labels), *data.input_shape), torch.tensor(labels))
    with pytest.raises(InputError, match=message):
        toy().trim("60%", scorer=By(0.0, 0.1, 0.2, 0.9), keep_max=2, data=replace(data, **{part: given}), check=8)


def test_what_is_left_trains_on(data):
    supernet = toy()
    plain = supernet.trim("60%", scorer="flops_order", data="digits")
    tuned = supernet.trim("60%", scorer="flops_order", data="digits", tune=1)
    assert tuned.choices == plain.choices
    assert "After 1 more epochs the trimmed supernet is right on" in tuned.report.notes[-1]
    assert not torch.equal(tuned.model.stem.weight, plain.model.stem.weight)


@pytest.mark.parametrize("options", [{"check": 8}, {"tune": 1}])
def test_without_data_nothing_is_trained(options):
    with pytest.raises(InputError, match="train on images"):
        toy().trim("60%", **options)


def test_settled_scores_go_on_after_a_stage():
    structure = toy().structure
    scores = {choice.name: dict.fromkeys(choice.ops, 0.5) for choice in structure.choices}
    small = structure.keep({structure.choices[0].name: ["conv3", "skip"]})
    task = replace(small)
    found = checked.Settled(scores, "x").score(task)  # type: ignore[arg-type]
    assert found[structure.choices[0].name].tolist() == [0.5, 0.5]
