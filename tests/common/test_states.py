"""A state dict may hold more than tensors: that stays with the module, and hinders nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.states import state_tensors

IMAGES = torch.rand(40, 1, 8, 8), torch.arange(40) % 3


class Counting(nn.Module):
    """Keeps a dict in its state, as layers of other libraries do."""

    def __init__(self, steps: int = 0) -> None:
        super().__init__()
        self.steps = steps
        self.a, self.b, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 3)

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.steps = state["steps"]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).relu().mean((2, 3)))


@pytest.fixture(scope="module")
def result() -> nasprune.SearchResult:
    return nasprune.search(Counting(3).eval(), IMAGES[0][:1], "60%", trials=2)


def test_only_tensors_are_given_and_they_are_the_very_ones():
    model = Counting()
    assert set(state_tensors(model)) == set(model.state_dict()) - {"_extra_state"}
    assert state_tensors(model)["a.weight"].data_ptr() == model.a.weight.data_ptr()


def test_such_a_network_is_saved_and_loaded(result, tmp_path):
    nasprune.save(result, tmp_path / "run")
    small = nasprune.load(tmp_path / "run", Counting(5))
    assert torch.equal(small(IMAGES[0]), result.model.eval()(IMAGES[0]))
    assert (result.model.steps, small.steps) == (3, 5)


def test_such_a_network_is_verified(result):
    model = Counting(3).eval()
    graph = nasprune.trace(model, IMAGES[0][:1])
    small = nasprune.build(model, graph, result.plan)
    assert nasprune.verify(model, small, graph, result.plan).ok


def test_such_a_network_is_pruned_in_training_and_packed(result, tmp_path):
    pruned = nasprune.prune(Counting(3), IMAGES[0][:1], "70%", data=IMAGES, epochs=1)
    assert pruned.model.steps == 3
    nasprune.compress(result.model, tmp_path / "small.safetensors")
    assert nasprune.decompress(tmp_path / "small.safetensors", result.model).steps == 3
