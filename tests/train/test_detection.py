"""Detectors, which take images and boxes and give their own losses, from the search to the fine-tuning."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

import nasprune
from nasprune.cost.flops import measure
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.harm.fisher import _is_listed
from nasprune.train.nearness import Nearness
from nasprune.train.objective import Objective
from nasprune.train.recipe import Recipe
from nasprune.train.taps import taps


class Backbone(nn.Module):
    """Two maps of features of 16 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second, self.third = conv(3, 8, 2), conv(8, 16, 2), conv(16, 16, 2)
        self.out_channels = [16, 16]

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        x = self.second(self.stem(x))
        return OrderedDict([("0", x), ("1", self.third(x))])


def conv(inputs: int, outputs: int, stride: int) -> nn.Module:
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def detector() -> nn.Module:
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
    from torchvision.models.detection.ssd import SSD

    torch.manual_seed(0)
    anchors = DefaultBoxGenerator([[1.0], [1.0]], scales=[0.3, 0.5, 0.8])
    return SSD(Backbone(), anchors, (32, 32), 3, image_mean=[0, 0, 0], image_std=[1, 1, 1])


class Boxes(Dataset[tuple[Tensor, dict[str, Tensor]]]):
    """One bright square an image, of one of two colours, and noise."""

    def __init__(self, count: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.items = []
        for number in range(count):
            image, side = 0.1 * torch.randn(3, 32, 32, generator=generator), 10 + number % 5
            x, y = torch.randint(0, 32 - side, (2,), generator=generator).tolist()
            image[number % 2, y : y + side, x : x + side] += 1
            box = torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32)
            self.items.append((image, {"boxes": box, "labels": torch.tensor([number % 2 + 1])}))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        return self.items[index]


@pytest.mark.slow
def test_a_detector_is_searched_polished_and_fine_tuned(tmp_path) -> None:
    data, task = Boxes(64), nasprune.Detection()
    image = data[0][0][None]
    epochs: list[float] = []
    told = {"on_epoch": lambda epoch: epochs.append(epoch.validation_loss)}
    dense = nasprune.finetune(detector(), data, task=task, epochs=3, batch_size=8, lr=0.02, **told)
    assert epochs[-1] < epochs[0]
    options = {"scope": "backbone", "data": data, "allow_chance": True}
    with pytest.raises(InputError, match=r"targets of this data are dicts.*evaluator='importance'"):
        nasprune.search(dense, image, "60%", evaluator="accuracy", **options)
    found = nasprune.search(dense, image, "60%", evaluator="importance", **options)
    parts = [submodule(net, "backbone") for net in (dense, found.model)]
    big, small = (measure(part, image).flops for part in parts)
    assert small <= 0.6 * big
    polished = nasprune.polish(found, dense, data, steps=8)
    assert polished.after <= polished.before
    tuned = nasprune.finetune(found, data, task=task, epochs=1, batch_size=8, lr=0.01, out=tmp_path, **told)
    assert all(value.isfinite().all() for value in tuned.state_dict().values())
    pruned = nasprune.prune(
        dense, image, "60%", scope="backbone", data=data, epochs=1, strategy="soft", task=task, batch_size=8
    )
    assert pruned.report.proof.ok
    with pytest.raises(InputError, match="for the task Detection, whose networks give losses, a teacher shows its fea"):
        nasprune.finetune(found.model, data, task=task, teacher=dense)
    with pytest.raises(InputError, match=r"targets in dicts are learned with .* task=nasprune.Detection"):
        nasprune.finetune(found, data)


def test_a_teacher_of_a_detector_shows_the_features_of_what_the_small_one_reads() -> None:
    data, task = Boxes(16), nasprune.Detection()
    images, targets = [image for image, _ in data.items[:4]], [target for _, target in data.items[:4]]
    dense = detector()
    given = {"scope": "backbone", "data": data, "allow_chance": True, "reconstruct": "none"}
    found = nasprune.search(dense, images[0][None], "60%", evaluator="importance", controller="uniform", **given)
    graph = found.graph
    where = taps(graph, found.plan, submodule(dense, graph.scope))
    near = Nearness(dense.eval(), where, graph.scope, speaks=False)
    losses = []
    for share in (0.0, 1.0, 2.0):
        student = deepcopy(found.model).train()
        loss, _ = Objective(Recipe(feature_share=share), near, task)(student, images, targets)
        losses.append(float(loss.detach()))
    assert losses[1] > losses[0]
    assert losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
    whole = taps(graph, replace(found.plan, keep={}), submodule(dense, graph.scope))
    _, same = Nearness(dense, whole, graph.scope, speaks=False).beside(dense, lambda net: net(images))
    assert float(same.detach()) == 0.0
    with pytest.raises(InputError, match="the part of the network that was cut did not run"):
        near.beside(found.model, lambda _: 0)


@pytest.mark.slow
def test_a_detector_learns_from_its_teacher() -> None:
    data, task = Boxes(64), nasprune.Detection()
    dense = nasprune.finetune(detector(), data, task=task, epochs=3, batch_size=8, lr=0.02)
    given = {"scope": "backbone", "data": data, "allow_chance": True}
    found = nasprune.search(dense, data[0][0][None], "60%", evaluator="importance", **given)
    images = torch.stack([image for image, _ in data.items[:32]])
    where = taps(found.graph, found.plan, submodule(dense, "backbone"))
    far = []
    for teacher in (None, dense):
        tuned = nasprune.finetune(found, data, task=task, epochs=2, batch_size=8, lr=0.01, teacher=teacher)
        near = Nearness(dense, where, "backbone", speaks=False)
        far.append(near.measure(tuned, [images]))
    assert far[1] < far[0]


def test_boxes_are_right_where_class_and_place_are() -> None:
    task = nasprune.Detection()
    true = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]]), "labels": torch.tensor([1, 2])}
    found = {
        "boxes": torch.tensor([[0.0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 9, 10]]),
        "labels": torch.tensor([1, 1, 1]),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
    }
    assert task._score(found, true) == pytest.approx(2 / 5)  # one right of three found and two true
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    assert task._score(none, true) == 0.0
    assert task._score(none, none) == 1.0
    assert _is_listed([found])
    assert not _is_listed([torch.zeros(2, 3)])
    with pytest.raises(InputError, match="detection needs a network that gives a dict of losses"):
        task.loss_of(lambda inputs, targets: torch.zeros(()), [torch.zeros(3, 8, 8)], [true])  # type: ignore[arg-type]


class Listing(nn.Module):
    """Its outputs are lists, and layers run before and behind the part that is cut, which writes into what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Linear(8, 5)
        self.enc = nn.Sequential(nn.ReLU(inplace=True), conv(8, 16, 2), conv(16, 16, 1), nn.Conv2d(16, 8, 1))

    def forward(self, x, targets=None):
        outputs = self.head(self.enc(self.stem(torch.stack(list(x)))).mean((2, 3)))
        if self.training:
            return {"loss": functional.cross_entropy(outputs, torch.cat([one["labels"] for one in targets]))}
        return [{"boxes": torch.zeros(1, 4), "scores": one.softmax(0)[:1], "labels": torch.ones(1)} for one in outputs]


def test_what_stands_before_the_part_that_was_cut_is_not_learned_along() -> None:
    torch.manual_seed(0)
    dense, data = Listing().eval(), Boxes(32)
    images = torch.stack([image for image, _ in data.items])
    given = {"scope": "enc", "data": data, "evaluator": "importance", "allow_chance": True, "reconstruct": "none"}
    found = nasprune.search(dense, images[:1], "50%", controller="uniform", **given)
    polished = nasprune.polish(found, dense, data, steps=80, lr=2e-3)
    assert polished.kept
    assert torch.equal(polished.model.stem.weight, dense.stem.weight)

    def far(net: nn.Module) -> float:
        with torch.no_grad():
            wanted, reached = (one.enc(one.stem(images)) for one in (dense, net))
        return float((reached - wanted).square().mean())

    assert far(polished.model) < far(found.model)
    near = Nearness(dense, taps(found.graph, replace(found.plan, keep={}), dense.enc), "enc", speaks=False)
    assert near.measure(dense, [images]) == 0
    moved = deepcopy(dense)
    with torch.no_grad():
        moved.stem.weight.mul_(2)
    assert float(near.loss(moved, images).detach()) > 0.1, "the dense network reads what its own layers before give"
    tuned = nasprune.finetune(found, data, task=nasprune.Detection(), teacher=dense, epochs=1, batch_size=8)
    assert not torch.equal(tuned.stem.weight, dense.stem.weight)


def test_what_a_detector_cannot_learn_from_is_said() -> None:
    torch.manual_seed(0)
    dense, data, task = Listing().eval(), Boxes(16), nasprune.Detection()
    given = {"scope": "enc", "data": data, "evaluator": "importance", "allow_chance": True, "reconstruct": "none"}
    found = nasprune.search(dense, data[0][0][None], "50%", controller="uniform", **given)
    wide = deepcopy(dense)
    wide.enc[3], wide.head = nn.Conv2d(16, 12, 1), nn.Linear(12, 5)
    for teacher, text in ((found.model, "has shape"), (wide, "has shape"), (nn.Conv2d(3, 4, 3), "name a submodule")):
        for call in (
            lambda teacher: nasprune.finetune(found, data, task=task, teacher=teacher),
            lambda teacher: nasprune.polish(found, teacher, data, steps=8),
        ):
            with pytest.raises(InputError, match=text):
                call(teacher)
    sizes = [(image[:, : 20 + number], target) for number, (image, target) in enumerate(data.items)]
    with pytest.raises(InputError, match="polish learns from images of one size"):
        nasprune.polish(found, dense, sizes, steps=8)
    items = data.items
    for wrong, text in (
        ([(image, None) for image, _ in items], "and these are none; give boxes"),
        ([(image, number % 2) for number, (image, _) in enumerate(items)], "and these are class numbers; give boxes"),
        (
            [(image, {"labels": target["labels"]}) for image, target in items],
            r"got one of the shapes .'labels': \(1,\)",
        ),
        ([(image, {**target, "name": "cat"}) for image, target in items], "has under 'name' a str"),
        ([(image, {**target, "name": np.array(["cat"])}) for image, target in items], "has under 'name' a ndarray"),
    ):
        with pytest.raises(InputError, match=text):
            nasprune.finetune(found, wrong, task=task, epochs=1)
    numbered = [(image, {**target, "image_id": number}) for number, (image, target) in enumerate(items)]
    assert nasprune.finetune(found, numbered, task=task, epochs=1, batch_size=8)
    many = [(image, {**target, "labels": target["labels"] + 9}) for image, target in items]
    with pytest.raises(InputError, match=r"does not take these boxes and labels: .*Target 1[01] is out of bounds"):
        nasprune.finetune(found, many, task=task, epochs=1)
