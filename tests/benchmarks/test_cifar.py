"""The parts of the CIFAR benchmark that need no trained weights."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console

from benchmarks import cifar
from benchmarks.cifar import ABLATION, ROWS, Case, Images, Outcome, Setting, accuracy, measured, table
from benchmarks.peers import STEPS, TorchPruning, shrink
from nasprune.cost.flops import measure
from nasprune.data import ArrayDataset
from nasprune.models.nets import ResidualNet

CASE = Case("small", 60)


def small_net() -> ResidualNet:
    torch.manual_seed(0)
    return ResidualNet(input_shape=(3, 32, 32), widths=(8, 16), blocks=1, num_classes=10).eval()


@pytest.fixture
def images(monkeypatch) -> Images:
    monkeypatch.setattr(cifar, "SEEN", dict.fromkeys(cifar.SEEN, 20))
    monkeypatch.setattr(cifar, "UNSEEN", 20)
    pixels = torch.randn(120, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    marks = ArrayDataset(pixels, torch.arange(120) % 10)
    return Images(marks.subset(range(100)), marks.subset(range(100, 120)))


def rendered(outcomes: list[Outcome], *, unseen: bool) -> str:
    console = Console(width=160)
    with console.capture() as shown:
        console.print(table(outcomes, title="", unseen=unseen))
    return shown.get()


def test_shrink_stops_at_the_first_size_that_fits():
    left = [100]

    def step() -> None:
        left[0] -= 7

    assert shrink(step, lambda: left[0], 100) == 0
    assert shrink(step, lambda: left[0], 60) == 6
    assert left == [58]


def test_shrink_gives_up_on_what_does_not_get_smaller():
    calls = []
    with pytest.raises(ValueError, match="5 FLOPs are left after 100 steps, 4 are allowed"):
        shrink(lambda: calls.append(1), lambda: 5, 4)
    assert len(calls) == STEPS


def test_the_peer_is_cut_to_the_budget_inside_the_blocks_and_copied(images):
    pytest.importorskip("torch_pruning")
    model = small_net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outcome = measured(CASE, TorchPruning(), model, images, 0)
    assert 0.5 < outcome.kept <= 0.6
    cut = TorchPruning().cut(
        model, cifar.EXAMPLE, measure(model, cifar.EXAMPLE).flops * 6 // 10, images.by_seed(0)[0], 0
    )
    assert cut.layer1[0].conv1.out_channels < 8
    assert cut.layer1[0].conv2.out_channels == 8
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_setting_is_cut_to_the_budget_and_never_reads_the_test_images(images):
    outcome = measured(CASE, Setting("uniform", {"controller": "uniform", "trials": 2}), small_net(), images, 0)
    assert 0.4 < outcome.kept <= 0.6
    with pytest.raises(RuntimeError, match="must not read test images"):
        images.by_seed(0)[0].test[0]


def test_a_row_above_the_budget_is_an_error(images):
    class Idle:
        name = "idle"
        missing = ""
        once = False

        def cut(self, model, example, budget, data, seed):
            return model

    with pytest.raises(RuntimeError, match="idle on small 60 %"):
        measured(CASE, Idle(), small_net(), images, 0)


def test_a_seed_fixes_the_images_and_parts_do_not_overlap(images):
    data, unseen = images.by_seed(1)
    again, _ = images.by_seed(1)
    other, _ = images.by_seed(2)
    assert torch.equal(data.calibration.images, again.calibration.images)
    assert not torch.equal(data.calibration.images, other.calibration.images)
    parts = (data.train, data.calibration, data.validation, unseen, images.test)
    every = torch.cat([part.images for part in parts])
    assert len(torch.unique(every[:, 0, 0, 0])) == 100


def test_accuracy_is_the_share_of_right_answers():
    logits = torch.eye(10)[torch.tensor([0, 1, 2, 2])]
    assert accuracy(torch.nn.Identity(), ArrayDataset(logits, torch.tensor([0, 1, 2, 3]))) == 0.75


def test_the_table_holds_means_and_spreads():
    found = [Outcome(CASE, "dense", 1.0, 0.9, 0.95, 0.0)]
    found += [Outcome(CASE, "row", 0.5, 0.6 + 0.1 * seed, 0.8, 2.0 + seed) for seed in range(3)]
    shown = rendered(found, unseen=True)
    assert [cell.strip() for cell in shown.splitlines()[4].split("│")[2:-1]] == [
        "row", "50.00", "70.0", "60.0 to 80.0", "3.0", "80.0",
    ]  # fmt: skip
    assert "unseen" not in rendered(found, unseen=False)


def test_rows_have_names_of_their_own():
    for rows in (ROWS, ABLATION):
        assert len({row.name for row in rows}) == len(rows)


def test_without_assets_the_benchmark_says_so_and_ends(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cifar, "ASSETS", tmp_path)
    cifar.main([])
    assert "NASPRUNE_ASSETS" in capsys.readouterr().out


def test_the_ratio_of_search_times_is_of_means_over_seeds():
    ours = [Outcome(CASE, "nasprune", 0.6, 0.9, 0.9, seconds) for seconds in (8.0, 12.0)]
    other = Outcome(CASE, "slow", 0.6, 0.9, 0.9, 70.0)
    assert cifar.times_slower([*ours, other], "slow") == ["small 60 %: slow took 7.0 times as long as nasprune"]
    assert cifar.times_slower([other], "slow") == cifar.times_slower(ours, "slow") == []
