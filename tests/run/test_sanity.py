"""A trained network at chance on the labels stops a search; one that knows all images by heart is said to."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

import nasprune
from nasprune.data import load_data
from nasprune.errors import InputError
from nasprune.models.initial import looks_initialised
from nasprune.run.sanity import check_not_at_chance
from nasprune.train.finetune import finetune
from tests.toys import tiny_net

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def images():
    parts = load_data("digits")
    whole = (parts.train, parts.calibration, parts.validation, parts.test)
    return torch.cat([part.images for part in whole]), torch.cat([part.labels for part in whole])


@pytest.fixture(scope="module")
def trained(images):
    return finetune(tiny_net(), images, epochs=3, lr=0.1)


def test_what_it_learned_is_above_chance(trained, images):
    check_not_at_chance(trained, load_data(images), CPU)


WRONG = {
    "labels of others": (
        lambda x, y: (x, y.roll(500)),
        "right on .*% of .* images .* by chance; likely causes",
    ),
    "another normalisation": (lambda x, y: (x * 128 + 128, y), "likely causes: the images are not normalised"),
    "one class": (lambda x, y: (x[y == 3], y[y == 3]), "have the same label, so that accuracy says nothing"),
}


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_near_chance_the_search_stops(trained, images, change, message):
    data = change(*images)
    with pytest.raises(InputError, match=message):
        nasprune.search(trained, images[0][:1], "60%", data=data)


def test_the_user_may_go_on(trained, images):
    x, y = images
    result = nasprune.search(trained, x[:1], "60%", data=(x[:200], y[:200].roll(7)), trials=1, allow_chance=True)
    assert result.report.proof.ok


def test_nothing_is_said_of_new_networks_masks_and_images_without_labels(trained, images):
    x, y = images
    check_not_at_chance(tiny_net(), load_data((x, y.roll(500))), CPU)
    check_not_at_chance(trained, load_data((x, None)), CPU)
    check_not_at_chance(nn.Conv2d(1, 3, 1), load_data((x, torch.zeros(len(x), 8, 8).long())), CPU)


@pytest.mark.parametrize("name", ["resnet18", "alexnet", "squeezenet1_0", "convnext_tiny"])
def test_networks_as_they_are_made_look_so(name):
    assert looks_initialised(torchvision.models.get_model(name, weights=None))


def test_trained_ones_do_not(trained, images):
    assert not looks_initialised(trained)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    assert looks_initialised(plain)
    assert not looks_initialised(finetune(plain, images, epochs=1, lr=0.1))


class Known(nn.Module):
    """Knows the label of every image: it is the value of all of its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 1, bias=False), nn.Conv2d(16, 4, 1)
        with torch.no_grad():
            self.a.weight.fill_(1.0)
            self.b.weight.copy_(torch.arange(4.0)[:, None, None, None].expand(4, 16, 1, 1) / 8)
            self.b.bias.copy_(-torch.arange(4.0).square())

    def forward(self, x):
        return self.b(self.a(x).relu()).mean((2, 3))


def test_images_known_by_heart_are_no_test():
    labels = torch.arange(60) % 4
    x = labels.float()[:, None, None, None].expand(60, 1, 4, 4).contiguous()
    for data, seen in (((x, labels), True), (((x, labels), (x, labels), (x, labels)), False)):
        result = nasprune.search(Known(), x[:1], "60%", data=data, trials=1)
        assert result.report.dense_score == 1
        assert any("right on every validation image" in note for note in result.report.notes) is seen


def test_the_split_is_in_the_report(trained, images):
    result = nasprune.search(trained, images[0][:1], "60%", data=images, trials=1)
    settings = result.report.settings
    assert settings["data split"].endswith("drawn by the seed from the 1,797 given")
    assert settings["normalisation"] == "as given"


def test_evaluators_that_read_no_labels_go_on(trained, images):
    x, y = images
    result = nasprune.search(trained, x[:1], "60%", data=(x[:200], y[:200].roll(7)), trials=1, evaluator="kl")
    assert result.report.proof.ok
