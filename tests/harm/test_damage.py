"""Damages from one backward pass against the divergence that is measured by cutting."""

from __future__ import annotations

import copy
from math import exp

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from nasprune.calibration.consumers import consumers
from nasprune.cut.selection import best_units
from nasprune.cut.stirred import distinct
from nasprune.errors import InputError
from nasprune.harm import damage
from nasprune.harm.damage import _interpolated, _measured, damages
from nasprune.harm.rows import damped, read_rows
from nasprune.run.names import search_space
from nasprune.run.trace import trace
from nasprune.space.choices import SearchSpace, WidthChoice
from nasprune.testing import SampleNet
from tests.harm.priced import INPUT, harms_of

T = 4.0


def divergence(model: nn.Module, changed: nn.Module, x: Tensor) -> float:
    with torch.no_grad():
        p, q = ((net(x) / T).log_softmax(1) for net in (model, changed))
    return float((p.exp() * (p - q)).sum(1).mean()) * T * T


@pytest.fixture(scope="module")
def case() -> tuple:
    torch.manual_seed(0)
    model = distinct(SampleNet()).eval()
    graph = trace(model, torch.randn(INPUT))
    space = search_space(graph, "widths", divisor=4)
    scores = {group.name: torch.rand(group.width) for group in graph.free_groups}
    return model, graph, space, scores, torch.randn(1024, *INPUT[1:])


def test_damages_order_options_as_cutting_does(case: tuple) -> None:
    model, graph, space, scores, x = case
    found = damages(model, graph, space, scores, [x], refit=False)
    priced, measured = [], []
    for choice in space.widths:
        group = graph.group(choice.name)
        for option in choice.options[:-1]:
            changed = copy.deepcopy(model)
            kept = torch.zeros(group.width, dtype=torch.bool)
            kept[list(best_units(group, scores[group.name], option))] = True
            for one in consumers(changed, graph, group):
                flat = one.modules[0].weight.data
                gone = torch.from_numpy(one.channels[~kept.numpy()]).flatten()
                per_group = flat.shape[1]
                for channel in gone.tolist():
                    rows = len(flat) // (1 if one.modules[0].weight.ndim == 2 else one.modules[0].groups)
                    part, position = divmod(channel, per_group)
                    flat[part * rows : (part + 1) * rows, position] = 0
            priced.append(found[choice.name][option])
            measured.append(divergence(model, changed, x))
    for block in space.blocks:
        changed = copy.deepcopy(model)
        setattr(changed, block.name, nn.ReLU())
        priced.append(found[block.name][0])
        measured.append(divergence(model, changed, x))
    assert spearmanr(priced, measured)[0] > 0.8


def test_small_damages_are_the_divergence() -> None:
    """A linear net: the first-order change is exact, and the second-order divergence nearly so."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 4)).eval()
    with torch.no_grad():
        model[1].weight.mul_(0.1)
    graph, x = trace(model, torch.randn(1, 5)), torch.randn(4000, 5)
    space = search_space(graph, "widths", divisor=1)
    scores = {"0": torch.arange(8.0)}
    found = damages(model, graph, space, scores, [x], refit=False)
    measured: list[float] = []
    for option in reversed(range(1, 8)):
        changed = copy.deepcopy(model)
        changed[1].weight.data[:, : 8 - option] = 0
        measured.append(divergence(model, changed, x))
        assert found["0"][option] == pytest.approx(max(measured), rel=0.15)  # narrower never counts as less harmful


def test_refitting_lowers_damage_and_full_width_has_none(case: tuple) -> None:
    model, graph, space, scores, x = case
    plain, refitted = (damages(model, graph, space, scores, [x], refit=refit) for refit in (False, True))
    totals = [sum(sum(options.values()) for options in found.values()) for found in (plain, refitted)]
    assert totals[1] < totals[0]
    for choice in space.choices:
        assert plain[choice.name][choice.options[-1]] == 0
        assert set(plain[choice.name]) == set(choice.options)


def test_a_refit_on_dense_inputs_makes_nothing_good_that_was_lost_before(case: tuple) -> None:
    model, graph, space, scores, x = case
    mended, bare = (damages(model, graph, space, scores, [x], refit=True, mends=mends) for mends in (True, False))
    left = damage._left_by_refit(graph, {g.name: consumers(model, graph, g) for g in graph.free_groups})
    for choice in space.choices:
        option = choice.options[0]
        assert mended[choice.name][option] == pytest.approx(left[choice.name] * bare[choice.name][option])


def test_the_model_is_left_as_it_was(case: tuple) -> None:
    model, graph, space, scores, x = case
    model = copy.deepcopy(model).train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (damages(model, graph, space, scores, [x[:32]], refit=True) for _ in range(2))
    assert first == second
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert model.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_options_between_measured_ones_are_interpolated() -> None:
    options = tuple(range(8, 513, 8))
    chosen = _measured(options)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (8, 504)
    harms = _interpolated(options, {option: (512 - option) ** 2 / 100 for option in chosen})
    assert harms[512] == 0
    assert list(harms.values()) == sorted(harms.values(), reverse=True)
    assert harms[256] == pytest.approx(256**2 / 100, rel=0.01)


def test_without_inputs_it_says_what_is_missing(case: tuple) -> None:
    model, graph, space, scores, _ = case
    with pytest.raises(InputError, match="calibration inputs"):
        damages(model, graph, space, scores, [], refit=False)


def test_covariances_far_from_zero_do_not_cancel() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(5, 3)
    near = [torch.randn(400, 5) * torch.arange(1, 6) / 10 for _ in range(3)]
    found, expected = (
        damped(read_rows(nn.Sequential(layer), {"0.weight": [layer]}, batches)["0.weight"])
        for batches in ([1000 + batch for batch in near], near)
    )
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_one_output_is_priced_by_its_squared_change() -> None:
    """A linear net: half the mean squared change of the output, measured by cutting."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 1)), torch.randn(8000, 5)
    found = harms_of(model, x)
    measured = []
    for option in (6, 4, 2):
        changed = copy.deepcopy(model)
        changed[1].weight.data[:, option:] = 0
        with torch.no_grad():
            measured.append(float((model(x) - changed(x)).square().mean()) / 2)
        assert found["0"][option] == pytest.approx(max(measured), rel=0.1)  # narrower never counts as less harmful


def test_a_choice_of_one_option_has_no_harm() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), torch.randn(8, 5)
    graph = trace(model.eval(), x[:1])
    space = SearchSpace((WidthChoice("0", (8,)),))
    assert damages(model, graph, space, {"0": torch.rand(8)}, [x], refit=False) == {"0": {8: 0.0}}


def test_what_the_refit_behind_makes_good_grows_with_the_layers_behind() -> None:
    """A chain of ten linear layers: each group is priced by the layers from its reader on."""
    torch.manual_seed(0)
    layers = [part for _ in range(9) for part in (nn.Linear(6, 6), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(6, 3)).eval()
    graph = trace(model, torch.randn(1, 6))
    readers = {group.name: consumers(model, graph, group) for group in graph.free_groups}
    left = damage._left_by_refit(graph, readers)
    assert [left[str(2 * n)] for n in range(9)] == pytest.approx([exp(-damage.MENDED * (8 - n) / 9) for n in range(9)])

    net = distinct(SampleNet()).eval()
    graph = trace(net, torch.randn(INPUT))
    left = damage._left_by_refit(graph, {})
    assert set(left) == {block.name for block in graph.blocks}
    assert all(exp(-damage.MENDED) <= share < 1 for share in left.values())
