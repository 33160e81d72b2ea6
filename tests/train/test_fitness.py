"""What fine-tuning takes: any images, transforms, sizes and teachers; what it holds back is said."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

from nasprune.data import load_data
from nasprune.errors import InputError
from nasprune.train.detection import Detection
from nasprune.train.finetune import finetune
from nasprune.train.fitness import training_parts
from nasprune.train.polish import polish

IMAGES = torch.randn(60, 1, 8, 8), torch.arange(60) % 3


def net(classes: int = 3) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))


def seen_by(model, data, **options) -> int:
    return len(training_parts(data, seed=0, input_size=options.get("input_size"), model=model).train)


def test_data_of_ones_own_is_trained_on_but_for_a_tenth(caplog):
    with caplog.at_level(logging.WARNING):
        assert seen_by(net(), IMAGES) == 54
    assert "finetune trains on 54 images of data 'data'; 6 validate. To divide" in caplog.text


def test_a_given_test_and_named_data_keep_their_parts(caplog):
    assert seen_by(net(), (IMAGES, IMAGES)) == 53
    assert "7 validate, 60 for a test" in caplog.text
    caplog.clear()
    assert seen_by(net(), "digits") == 1078
    assert "180 are left for calibration, 359 for a test" in caplog.text
    caplog.clear()
    assert seen_by(net(), load_data("digits")) == 1078
    assert not caplog.text


def test_images_are_resized_as_in_the_search(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    colour = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    finetune(colour, f"imagefolder:{tmp_path}", epochs=1, input_size=12)
    with pytest.raises(
        InputError, match=r"`input_size` is 12, and data 'data' gives images of shape .* does not resize"
    ):
        finetune(net(), IMAGES, epochs=1, input_size=12)


class Sized(nn.Module):
    """As torchvision's transformers, which assert a size."""

    def forward(self, x):
        torch._assert(x.shape[-1] == 16, "16 wanted")
        return x


class Lossy:
    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)


class Unreduced(Lossy):
    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    def score(self, outputs, targets):
        return (outputs.argmax(1) == targets).float()

    def guess(self, outputs) -> float:
        return 1.1


AUGMENTS = {
    "old transform": transforms.RandomHorizontalFlip(),
    "composed": transforms.Compose([transforms.RandomCrop(8, padding=1), transforms.RandomErasing()]),
    "new transform": v2.RandomHorizontalFlip(),
    "of an image": lambda image: image.flip(-1),
    "of a batch": lambda images, generator: images + torch.rand(1, generator=generator),
}


@pytest.mark.parametrize("augment", AUGMENTS.values(), ids=AUGMENTS)
def test_transforms_of_any_kind_augment_the_same_each_time(augment):
    first, second = (finetune(net().eval(), IMAGES, epochs=1, augment=augment, seed=1) for _ in range(2))
    assert first[0].weight.shape == second[0].weight.shape


WRONG = {
    "of pictures": ({"augment": transforms.ToTensor()}, "`augment` failed on image tensors of shape .* pic should be"),
    "another shape": ({"augment": transforms.RandomCrop(4)}, r"`augment` must be what keeps a batch of shape \("),
    "a name": ({"augment": "flip"}, "`augment` must be a function or a transform, got the str 'flip'"),
    "to pictures": ({"augment": lambda image: image.numpy()}, "`augment` must give a tensor for an image tensor"),
    "other classes": ({"teacher": net(7)}, r"outputs of the model's shape \(1, 3\), got \(1, 7\); give a teacher"),
    "other images": ({"teacher": nn.Linear(3, 3)}, r"the teacher does not take images of shape \(1, 8, 8\)"),
    "a teacher's name": ({"teacher": "resnet18"}, "`teacher` must be a torch.nn.Module, got the str 'resnet18'"),
    "no size of a teacher": ({"teacher": Sized()}, r"the teacher does not take images of shape .*Error: 16 wanted"),
    "no methods": (
        {"task": Lossy()},
        "`task` must be an object with `loss`, .*, got a Lossy; add `score` to the class",
    ),
    "a task's name": ({"task": "boxes"}, "got the str 'boxes'; give for example task=nasprune.Detection"),
    "a task's class": ({"task": Detection}, r"got the class Detection; give an instance: Detection\(\)"),
    "no mean": ({"task": Unreduced()}, r"of the task Unreduced must be .* got a tensor of shape \(6,\); take its mean"),
    "seed": ({"seed": 0.5}, "`seed` must be a whole number, got the float 0.5"),
    "folder": ({"out": 3}, "`out` must be a path, got the int 3"),
    "masks": ({"masks": [1]}, "`masks` must be a dict of boolean tensors, got a list"),
    "no booleans": ({"masks": {"0.weight": IMAGES[0]}}, "the mask of '0.weight' must be a boolean tensor"),
    "epochs": ({"epochs": "3"}, "`epochs` must be a whole number, got the str '3'"),
    "rate": ({"lr": "0.1"}, "`lr` must be a number, got the str '0.1'"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_named(options, message):
    with pytest.raises(InputError, match=message):
        finetune(net(), IMAGES, **{"epochs": 1, **options})


def test_frozen_weights_stay_and_all_frozen_is_refused():
    model = net()
    model[0].requires_grad_(False)
    tuned = finetune(model, IMAGES, epochs=1)
    assert torch.equal(tuned[0].weight, model[0].weight)
    assert not torch.equal(tuned[4].weight, model[4].weight)
    with pytest.raises(InputError, match=r"every parameter of `model` is frozen .* model.requires_grad_\(True\)"):
        finetune(model.requires_grad_(False), IMAGES, epochs=1)


def test_a_model_that_asserts_another_size_is_told():
    with pytest.raises(
        InputError, match=r"which model 'Sized' does not take: AssertionError: 16 wanted, at .*\.py:\d+"
    ):
        finetune(Sized(), IMAGES, epochs=1)


def test_a_teacher_may_be_in_double_precision():
    student, teacher = net(), net()
    tuned, same = (
        finetune(student, IMAGES, epochs=1, teacher=one) for one in (copy.deepcopy(teacher).double(), teacher)
    )
    assert torch.allclose(tuned[0].weight, same[0].weight, atol=1e-5)


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model, self.plan, self.graph = net(), "a", "b"

    def forward(self, x):
        return self.model(x)


def test_a_network_with_the_attributes_of_a_result_is_a_network():
    assert isinstance(finetune(Holder(), IMAGES, epochs=1), Holder)
    assert isinstance(polish(Holder(), Holder(), IMAGES, steps=8).model, Holder)


def test_masks_may_be_a_dict():
    model = net()
    mask = torch.arange(9).reshape(3, 3).expand_as(model[0].weight) % 2 == 0
    with torch.no_grad():
        model[0].weight.mul_(mask)
    tuned = finetune(model, IMAGES, epochs=1, masks={"0.weight": mask})
    assert torch.equal(tuned[0].weight != 0, mask)
