"""What a model is called with: containers, numbers and keywords beside tensors, and what counts as a batch."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
from torch import nn

import nasprune
from nasprune.common.inputs import Inputs
from nasprune.cut.plan import PrunePlan
from nasprune.cut.recorded import InputSpec, TensorSpec
from nasprune.errors import InputError, PlanError

IMAGE = torch.randn(1, 3, 8, 8)


class Sample(NamedTuple):
    image: torch.Tensor
    size: int


class Picky(nn.Module):
    """Takes its image alone, in a list or in a dict, with a step that is a tensor, a number or left out."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.step, self.last = nn.Conv2d(3, 16, 3, padding=1), nn.Linear(1, 16), nn.Conv2d(16, 3, 1)

    def forward(self, image, step=None, *, shift=None):
        if isinstance(image, dict):
            image = image["image"]
        if isinstance(image, list):
            image = image[0]
        hidden = self.first(image)
        if step is not None:
            hidden = hidden + self.step(torch.as_tensor(step).reshape(-1, 1).float())[:, :, None, None]
        return self.last(hidden.relu()) if shift is None else self.last(hidden.relu()) + shift


CALLS = {
    "0-dim tensor": (IMAGE, torch.tensor(5)),
    "number": (IMAGE, 5),
    "None": (IMAGE, None),
    "list": ([IMAGE],),
    "list in a dict": ({"image": [IMAGE]},),
    "dict of another name": {"image": IMAGE, "mask": None},
    "keywords": {"step": torch.tensor([5]), "image": IMAGE},
    "both": nasprune.Inputs((IMAGE,), {"shift": torch.ones(1, 3, 1, 1), "step": 2.5}),
}


@pytest.mark.parametrize("inputs", CALLS.values(), ids=CALLS)
def test_every_call_is_searched_saved_and_loaded(inputs, tmp_path):
    model = Picky().eval()
    result = nasprune.search(model, inputs, "60%", trials=3)
    assert result.report.proof.ok
    nasprune.save(result, tmp_path)
    again = nasprune.load(tmp_path, Picky())
    call = Inputs.of(inputs, model)
    assert torch.equal(call.call(again), call.call(result.model))


class Graph(nn.Module):
    """Nodes come first, not a batch."""

    def __init__(self) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, nodes, adjacency):
        return adjacency @ self.outside(self.inside(nodes).relu())


@pytest.mark.parametrize(
    ("inputs", "shapes"),
    [
        (torch.randn(4, 8), ["[1, 8]"]),
        ((torch.randn(4, 8), torch.tensor(3)), ["[1, 8]", "[]"]),
        ((torch.randn(4, 8), torch.randn(4, 2)), ["[1, 8]", "[1, 2]"]),
        ((torch.randn(4, 8), torch.randn(2, 4)), ["[4, 8]", "[2, 4]"]),
        ((5, None), ["5", "None"]),
    ],
)
def test_a_batch_is_an_axis_that_all_tensors_share(inputs, shapes):
    assert str(Inputs.of(inputs).one_item(Anything())) == ", ".join(shapes)


class Anything(nn.Module):
    def forward(self, *values):
        return values


def test_nodes_that_are_no_batch_stay():
    inputs = Inputs.of((torch.randn(5, 8), torch.rand(5, 5)))
    assert inputs.one_item(Graph()) is inputs


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((1, 3, 8, 8), r"got the shape \(1, 3, 8, 8\); give a tensor, such as torch.randn\(1, 3, 8, 8\)"),
        ((IMAGE, object()), "got a object; give what the model is called with"),
        (IMAGE.to("meta"), "on the meta device"),
    ],
)
def test_what_no_model_is_called_with_is_refused(inputs, message):
    with pytest.raises(InputError, match=message):
        nasprune.trace(Picky(), inputs)


def test_containers_are_not_shared_with_the_model():
    class Greedy(nn.Module):
        def forward(self, images):
            images.clear()

    images = [IMAGE]
    Inputs.of((images,)).call(Greedy())
    assert images == [IMAGE]


def test_a_part_may_take_more_than_tensors():
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = Picky()

        def forward(self, image):
            return self.part([image], step=3)

    graph = nasprune.trace(Whole(), IMAGE, scope="part")
    assert [group.name for group in graph.free_groups] == ["first"]


def test_a_plan_that_cannot_say_its_inputs_asks_for_them(tmp_path):
    class Sized(Picky):
        def forward(self, sample):
            return super().forward(sample.image)

    inputs = (Sample(IMAGE, 8),)
    result = nasprune.search(Sized(), inputs, "60%", trials=3)
    nasprune.save(result, tmp_path)
    with pytest.raises(InputError, match="records no inputs to trace the model with; pass example_inputs="):
        nasprune.load(tmp_path, Sized())
    assert nasprune.load(tmp_path, Sized(), example_inputs=inputs)(*inputs).shape == IMAGE.shape


def test_recorded_inputs_survive_json():
    call = Inputs((IMAGE, [5, (None, "word")]), {"more": {"mask": torch.ones(2, dtype=torch.bool), "rate": 0.5}})
    plan = PrunePlan({}, inputs=InputSpec.of(call))
    again = PrunePlan.from_json(plan.to_json())
    assert again == plan
    assert str(again.inputs.noise()) == str(call)


@pytest.mark.parametrize("spec", [{"shape": [-1], "dtype": "float32"}, {"shape": "ab"}, {"value": []}, {}, None])
def test_damaged_inputs_are_refused(spec):
    text = PrunePlan({}, inputs=InputSpec((TensorSpec((1,), "float32"),))).to_json()
    with pytest.raises(PlanError):
        PrunePlan.from_json(json.dumps({**json.loads(text), "inputs": [spec]}))


def test_an_unknown_type_is_named():
    with pytest.raises(PlanError, match="'load', which torch lacks"):
        TensorSpec((1,), "load").noise()
