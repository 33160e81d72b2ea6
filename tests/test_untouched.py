"""Whatever a public function does with a model, the model is afterwards as it was: also one that never ran before."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import weight_norm
from torch.utils._pytree import tree_leaves

import nasprune
from nasprune.common.untouched import twin
from nasprune.errors import InputError
from tests.graph.structures import STRUCTURES

pytestmark = pytest.mark.usefixtures("looked_at_once")


class Odd(nn.Module):
    """Three layers; subclasses do in `forward` what models do in the wild."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.f = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3), nn.Linear(12, 4)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(self.b(self.norm(self.a(x)).relu()).relu().mean((2, 3)))


class KeepsActivation(Odd):
    def forward(self, x):
        self.features = self.a(x).relu()
        return super().forward(x) + 0 * self.features.mean()


class CachesGrid(Odd):
    grid, shape = torch.empty(0), None

    def forward(self, x):
        y = super().forward(x)
        if self.shape != y.shape:
            self.grid, self.shape = torch.arange(y.shape[-1], dtype=y.dtype), y.shape
        return y + self.grid


class CountsCalls(Odd):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)

    def forward(self, x):
        self.calls += 1
        self.scratch.add_(1)
        return super().forward(x)


class Collects(Odd):
    def __init__(self):
        super().__init__()
        self.seen, self.sizes, self.names = [], {}, set()

    def forward(self, x):
        self.seen.append(tuple(x.shape))
        self.sizes[len(self.sizes)] = x.shape[-1]
        self.names.add(x.shape[-1])
        return super().forward(x)


class ClipsItsWeights(Odd):
    def forward(self, x):
        with torch.no_grad():
            self.a.weight.clamp_(-0.05, 0.05)
        return super().forward(x)


class DrawsNumbers(Odd):
    def forward(self, x):
        random.random()
        np.random.random()  # noqa: NPY002
        return super().forward(x + 0 * torch.rand(1))


class OldWeightNorm(Odd):
    def __init__(self):
        super().__init__()
        with pytest.warns(FutureWarning):
            self.f = weight_norm(self.f)


class Hooked(Odd):
    def __init__(self):
        super().__init__()
        self.a.register_forward_hook(double)
        self.b.register_forward_pre_hook(lambda module, args: None)


def double(module, args, output):
    return output * 2


ODD = [KeepsActivation, CachesGrid, CountsCalls, Collects, ClipsItsWeights, DrawsNumbers, OldWeightNorm, Hooked]


def state(model: nn.Module) -> dict[str, object]:
    """Everything about a model that a caller can see."""
    found: dict[str, object] = {}
    for path, module in model.named_modules():
        found[f"{path} training"] = module.training
        for name, value in vars(module).items():
            found[f"{path}.{name}"] = id(value), type(value), _content(value)
        for name, value in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            grad = None if value.grad is None else value.grad.tolist()
            found[f"{path}.{name} tensor"] = id(value), value.requires_grad, grad, value.tolist()
    return found


def _content(value: object) -> object:
    if isinstance(value, Tensor):
        return value.tolist(), value.requires_grad
    if isinstance(value, dict | list | set | tuple):
        keys = list(value) if isinstance(value, dict | set) else len(value)
        return keys, [id(leaf) for leaf in tree_leaves(list(value) if isinstance(value, set) else value)]
    return None


def generators() -> int:
    return hash((random.getstate(), str(np.random.get_state()), tuple(torch.get_rng_state().tolist())))  # noqa: NPY002


def battery(model: nn.Module, inputs: Tensor, folder, budget: str = "80%") -> None:
    """Every public function that is given a model."""
    graph = nasprune.trace(model, inputs)
    widths = {group.name: tuple(range(group.multiple_of * max(1, group.width // group.multiple_of // 2)))
              for group in graph.free_groups if len(group.partitions) == 1}  # fmt: skip
    plan = nasprune.PrunePlan(graph.signature, widths)
    assert nasprune.verify(model, nasprune.build(model, graph, plan), graph, plan).ok
    options = {"trials": 2, "space_options": {"divisor": 2}, "allow_uncounted": True}  # whose times depend on the load
    result = nasprune.search(model, inputs, budget, **options)
    nasprune.save(result, folder / "run")
    nasprune.load(folder / "run", model)


@pytest.mark.parametrize("ran", [False, True], ids=["never ran", "ran in training"])
@pytest.mark.parametrize("kind", ODD, ids=lambda kind: kind.__name__)
def test_odd_models_are_left_alone(kind, ran, tmp_path):
    model = kind()
    model.norm.eval()
    model.b.bias.requires_grad_(False)
    images = torch.rand(20, 3, 8, 8)
    if ran:
        model(images).sum().backward()
    labels, plain = torch.arange(20) % 4, Odd()
    before, numbers = state(model), generators()
    battery(model, images[:2], tmp_path)
    student = nasprune.finetune(plain, (images, labels), epochs=1, batch_size=8, teacher=model)
    assert isinstance(student, nn.Module)
    nasprune.search(model, images[:2], "80%", data=(images, labels), space_options={"divisor": 2})
    after = state(model)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == set()
    assert numbers == generators()


@pytest.mark.parametrize("structure", STRUCTURES[::6], ids=lambda structure: structure.name)
def test_structures_are_left_alone(structure, tmp_path):
    torch.manual_seed(0)
    model, inputs = structure.make().train(), torch.rand(structure.shape)
    before, numbers = state(model), generators()
    graph = nasprune.trace(model, inputs)
    if graph.free_groups:
        battery(model, inputs, tmp_path, "99%")
    after = state(model)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == set()
    assert numbers == generators()


def test_a_supernet_is_left_alone():
    from tests.supernet.toys import Toy, images

    model, example = Toy(), images(2)
    before, numbers = state(model), generators()
    supernet = nasprune.Supernet.from_model(model, example)
    supernet.summary()
    supernet.score("flops_order")
    supernet.trim("70%", "flops_order")
    after = state(model)
    assert {key for key in {*before, *after} if before.get(key) != after.get(key)} == set()
    assert numbers == generators()


def test_what_cannot_be_copied_is_named():
    model = Odd()
    model.b.stream = (number for number in range(3))
    with pytest.raises(InputError, match=r"`b\.stream`, a generator, cannot be copied .* take it off"):
        nasprune.trace(model, torch.rand(1, 3, 8, 8))


def test_a_twin_shares_nothing():
    model = KeepsActivation()
    model(torch.rand(1, 3, 8, 8))
    copied = twin(model)
    assert copied.features.grad_fn is None
    copied.a.weight.data.zero_()
    assert model.a.weight.abs().sum() > 0
