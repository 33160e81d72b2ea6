"""The benchmark of nets that are trained on the spot: they can be cut, and its rows hold to the budget."""

from __future__ import annotations

import pytest
import torch

from benchmarks import other
from benchmarks.cifar import Case, Setting
from benchmarks.other import EXAMPLE, NETS, outcome
from benchmarks.peers import TorchPruning
from nasprune.data import ArrayDataset, DataSplits


@pytest.fixture(scope="module")
def data() -> DataSplits:
    images = torch.randn(160, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    every = ArrayDataset(images, torch.arange(160) % 10)
    parts = [every.subset(range(start, start + 40)) for start in range(0, 160, 40)]
    return DataSplits("noise", *parts, 10, (1, 8, 8))


@pytest.mark.parametrize("net", NETS)
def test_every_net_is_cut_to_half_with_data(net: str, data: DataSplits) -> None:
    torch.manual_seed(0)
    model = NETS[net]().eval()
    found = outcome(Case(net, 50), Setting("nasprune", {"trials": 4}), model, data, data.test, 0)
    assert 0.3 < found.kept <= 0.5
    with torch.no_grad():
        assert model(EXAMPLE).shape == (1, 10)


def test_equal_shares_leave_every_layer_some_width(data: DataSplits) -> None:
    pytest.importorskip("torch_pruning")
    model = NETS["plain"]().eval()
    small = TorchPruning("uniform", ranked=False).cut(model, EXAMPLE, 700_000, data, 0)
    widths = [(a.out_channels, b.out_channels) for a, b in zip(model, small, strict=True) if hasattr(a, "out_channels")]
    assert all(0.3 * before < after < 0.95 * before for before, after in widths)


def test_a_net_above_the_budget_is_an_error(data: DataSplits) -> None:
    class Idle:
        name = "idle"
        missing = ""

        def cut(self, model, example, budget, data, seed):
            return model

    with pytest.raises(RuntimeError, match="idle on plain 50 %"):
        outcome(Case("plain", 50), Idle(), NETS["plain"]().eval(), data, data.test, 0)


def test_nothing_chosen_is_nothing_done(capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        other.main(["--cases", "none of them"])
    assert caught.value.code == 0
