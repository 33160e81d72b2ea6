"""Random small nets as users bring them: training, in bfloat16, compiled, in other memory formats and batch sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasprune import build, trace
from nasprune.cut.stirred import distinct
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.verify import prove
from tests.graph.test_random_nets import PIECES, RandomNet

STATES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "evaluated": lambda net: net,
    "training": lambda net: net.train(),
    "bfloat16": lambda net: net.bfloat16(),
    "channels_last": lambda net: net.to(memory_format=torch.channels_last),
    "compiled": lambda net: torch.compile(net, backend="eager"),
}
Pieces = st.lists(st.sampled_from(PIECES), min_size=1, max_size=5)


def check_one(pieces: list[str], seed: int, state: str, batch: int) -> None:
    """Cuts half of everything and looks at the cut net in every way in which the dense one can be used."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    dense = distinct(RandomNet(pieces).eval())
    given_net = STATES[state](dense)
    dtype = next(dense.parameters()).dtype
    images = torch.randn(batch, 3, 8, 8).to(dtype)
    was_training, before = dense.training, {name: value.clone() for name, value in dense.state_dict().items()}

    graph = trace(given_net, images)
    proven = prove(dense, graph, half_plan(graph, [group.name for group in graph.free_groups]))
    assert proven.proof.ok
    assert not proven.proof.frozen, "what is free can be cut"
    assert proven.proof.max_error <= 1e-9
    assert dense.training == was_training
    assert all(torch.equal(value, before[name]) for name, value in dense.state_dict().items())

    small = build(dense, graph, proven.plan)
    assert (
        sum(map(Tensor.numel, small.parameters())) < sum(map(Tensor.numel, dense.parameters())) or not proven.plan.keep
    )
    check_training(dense, small, dtype)
    check_running(small.eval(), dtype)


def check_training(dense: nn.Module, small: nn.Module, dtype: torch.dtype) -> None:
    """Gradients reach what they reach in the dense net, and are numbers."""
    images = torch.randn(4, 3, 8, 8).to(dtype)
    for net in (dense, small):
        net.train().zero_grad()
        net(images).float().square().mean().backward()
    of_dense, of_small = (dict(net.named_parameters()) for net in (dense, small))
    for name, value in of_small.items():
        assert (value.grad is None) == (of_dense[name].grad is None)
        assert value.grad is None or bool(value.grad.isfinite().all())


@torch.no_grad()
def check_running(small: nn.Module, dtype: torch.dtype) -> None:
    images = torch.randn(5, 3, 8, 8).to(dtype)
    expected = small(images)
    tolerance = {"rtol": 0.1, "atol": 0.1 * float(expected.abs().max())} if dtype == torch.bfloat16 else {}
    others = {
        "alone": torch.cat([small(image[None]) for image in images]),
        "channels last": small(images.to(memory_format=torch.channels_last)),
        "compiled": torch.compile(small, backend="eager")(images),
    }
    for name, got in others.items():
        assert torch.allclose(got, expected, **(tolerance or {"rtol": 1e-3, "atol": 1e-4})), name
    if dtype == torch.float32:
        coarse = small.bfloat16()(images.bfloat16())
        assert coarse.shape == expected.shape
        assert bool(coarse.isfinite().all())
    torch._dynamo.reset()


cases = given(Pieces, st.integers(0, 2**16), st.sampled_from(sorted(STATES)), st.sampled_from([1, 3]))


@settings(max_examples=6, derandomize=True)
@cases
def test_random_nets_as_users_bring_them(pieces: list[str], seed: int, state: str, batch: int) -> None:
    check_one(pieces, seed, state, batch)


@pytest.mark.slow
@settings(max_examples=300, derandomize=True, suppress_health_check=list(HealthCheck))
@cases
def test_three_hundred_of_them(pieces: list[str], seed: int, state: str, batch: int) -> None:
    check_one(pieces, seed, state, batch)
