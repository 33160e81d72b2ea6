"""Searches in situations that are not the plain one: inference mode, state, inputs changed in place, odd arguments."""

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.graph.capture import capture

IMAGE = torch.randn(1, 3, 8, 8)


class InPlace(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        x.mul_(2)
        return super().forward(x)


def net(kind: type[nn.Sequential] = nn.Sequential) -> nn.Sequential:
    return kind(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 3))


def test_the_users_inputs_are_left_as_they_are():
    image = IMAGE.clone()
    result = nasprune.search(net(InPlace), image, "60%", trials=1)
    assert torch.equal(image, IMAGE)
    assert torch.equal(result.graph.example_inputs.tensors[0], IMAGE)


def test_in_inference_mode_the_result_can_be_trained():
    model = net()
    with torch.inference_mode():
        result = nasprune.search(model, IMAGE, "60%", trials=1)
    result.model.train()(IMAGE).sum().backward()
    assert all(value.grad is not None for value in result.model.parameters())


def test_torchs_default_device_has_no_values():
    model, fresh = net(), net()
    with torch.device("meta"):
        result = nasprune.search(model, IMAGE, "60%", trials=1)
        assert result.report.proof.ok
        assert nasprune.verify(model, result.model, result.graph, result.plan).ok
        assert not any(value.is_meta for value in nasprune.build(fresh, result.graph, result.plan).parameters())
        with pytest.raises(nasprune.InputError, match=r"call torch.set_default_device\('cpu'\) first"):
            nasprune.search(model, IMAGE, "60%", data=(IMAGE, torch.zeros(1)))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"exclude": "*"}, "`exclude` leaves out 2 of 2"),
        ({"include": "4", "exclude": "0"}, "`include` and `exclude` leave out 1 of 2"),
    ],
)
def test_a_budget_out_of_reach_since_layers_are_left_out(options, named):
    with pytest.raises(nasprune.BudgetError, match=f"cannot be met: .* since {named}"):
        nasprune.search(net(), IMAGE, "5%", trials=1, **options)


def test_torchs_transformer_with_a_mask():
    model = nn.Transformer(8, 2, 1, 1, 16, batch_first=True).eval()
    mask = model.generate_square_subsequent_mask(3)
    inputs = {"src": torch.randn(1, 4, 8), "tgt": torch.randn(1, 3, 8), "tgt_mask": mask}
    assert capture(model, nasprune.Inputs((), inputs)).inputs == ("src", "tgt", "tgt_mask")


class Complex(nn.Module):
    def __init__(self, last: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b = (nn.Linear(*sizes, dtype=torch.complex64) for sizes in ((6, 8), (8, 3)))
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.b(self.a(x.to(torch.complex64))))


@pytest.mark.parametrize("last", [torch.abs, torch.conj])
def test_complex_weights_are_ranked_by_their_lengths_and_outputs_compared_as_numbers(last):
    result = nasprune.search(Complex(last).eval(), torch.randn(1, 6), "60%", trials=1)
    assert result.report.proof.ok
    assert list(result.plan.keep) == ["a"]


class Offset(nn.Module):
    """With a number of its own that is no buffer, and that a sum in float32 rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)
        self.offsets = [torch.rand(1000)]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu()) + self.offsets[0].sum()


def test_a_tensor_in_an_attribute_is_as_precise_in_the_proof_as_parameters():
    assert nasprune.search(Offset().eval(), torch.randn(1, 6), "60%", trials=1).report.proof.max_error <= 1e-12


class Table(nn.Module):
    """Computes a table on its first call, in the precision of that call."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    @functools.cached_property
    def table(self) -> Tensor:
        return torch.linspace(0, 1, 6, dtype=self.a.weight.dtype).sin() / 3

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x + self.table).relu())


def test_a_table_of_the_first_call_is_in_the_proof():
    result = nasprune.search(Table().eval(), torch.randn(1, 6), "60%", trials=1)
    assert result.report.proof.ok
    assert result.report.proof.max_error <= 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"out": 5}, "`out` must be a path, got the int 5"),
        ({"out": ""}, "`out` must be a path, got the str ''"),
        ({"settings": 3}, "`settings` must be a dict of names and values"),
        ({"on_progress": 3}, "`on_progress` must be a function"),
        ({"should_stop": True}, "`should_stop` must be a function"),
        ({"budget": "1e400FLOPs"}, "a number that a network can reach"),
    ],
)
def test_arguments_that_cannot_be_meant(options, message):
    with pytest.raises(nasprune.NaspruneError, match=message):
        nasprune.search(net(), IMAGE, **options)


@pytest.mark.parametrize("where", ["model", "inputs"])
def test_sparse_tensors(where):
    class Graph(nn.Linear):
        def forward(self, x, adjacency=None):
            return torch.mm(self.adjacency if adjacency is None else adjacency, super().forward(x))

    model, adjacency = Graph(4, 3), torch.eye(5).to_sparse()
    inputs = (torch.randn(5, 4), adjacency)
    if where == "model":
        model.register_buffer("adjacency", adjacency)
        inputs = inputs[:1]
    with pytest.raises(nasprune.InputError, match=r"sparse.*dense"):
        nasprune.search(model, inputs, "60%")
