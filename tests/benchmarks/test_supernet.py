"""The code paths of the supernet benchmark, with next to no training."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
import torch
from rich.console import Console
from torch import nn

from benchmarks import foreign, noise, supernet, trims
from benchmarks.digits import PARTS, QUICK, digits, size, spread, trained_supernet
from search_spaces.darts import Darts
from search_spaces.nasbench201 import PRIMITIVES, NasBench201

COSTS = trims.prices(NasBench201())


def shown(table) -> str:
    console = Console(width=240)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def space(ops, **changed) -> trims.Space:
    return replace(trims.Space(0, "alpha", len(ops), 0, (tuple(ops),) * 6), **changed)


def test_the_digits_come_in_four_parts_that_do_not_overlap():
    data = digits(3)
    assert {name: len(getattr(data, name)) for name in PARTS} == PARTS
    every = torch.cat([getattr(data, name).images.flatten(1) for name in PARTS])
    assert len(every) == 1797
    assert torch.equal(digits(3).test.labels, data.test.labels)
    assert not torch.equal(digits(4).test.labels, data.test.labels)


def test_spreads_are_intervals_around_the_mean():
    found = spread({0: 1.0, 1: 2.0, 2: 6.0})
    assert (found.mean, found.low, found.high) == (3.0, 1.0, 6.0)
    assert spread({5: 2.0}).plain == "2.000 [2.000, 2.000]"
    assert str(spread({5: -2.0})) == "-2.000 [-2.000, -2.000]"


def test_prices_are_those_of_the_network_that_is_trained():
    assert COSTS[0, "nor_conv_3x3"] == 9 * COSTS[0, "nor_conv_1x1"] > COSTS[0, "skip_connect"] == 0
    assert len(COSTS) == 6 * len(PRIMITIVES)


def test_samples_of_all_spaces_have_the_same_sizes_where_they_can():
    wanted = [
        sum(trims.macs(cell, COSTS) for cell in trims.sample(space(ops), COSTS, 8)) / 8
        for ops in (PRIMITIVES[:4], ("skip_connect", "nor_conv_3x3"), ("none", "nor_conv_1x1", "nor_conv_3x3"))
    ]
    largest = 6 * COSTS[0, "nor_conv_3x3"]
    assert all(abs(total / largest - 0.5) < 0.05 for total in wanted)
    cells = trims.sample(space(("skip_connect", "nor_conv_3x3")), COSTS, 8)
    assert len(set(cells)) == 8
    assert trims.sample(space(("skip_connect",)), COSTS, 8) == [("skip_connect",) * 6]
    assert trims.sample(space(("none",), seed=1), COSTS, 8) == [("none",) * 6]


def test_training_from_scratch_is_fixed_by_seed_and_cell():
    cell = ("nor_conv_1x1",) * 6
    first, again, other = (trims.stand_alone(seed, cell, 2) for seed in (0, 0, 1))
    assert first == again != other
    assert 0 <= first[1] <= 1 < first[0]


def test_qualities_are_of_the_sample():
    cells = [("skip_connect",) * 6, ("nor_conv_3x3",) * 6]
    found = trims.quality(
        space(("skip_connect", "nor_conv_3x3")), cells, {(0, cells[0]): (1.0, 0.4), (0, cells[1]): (2.0, 0.6)}
    )
    assert (found.mean, found.best, found.worst_tenth) == (1.5, 1.0, pytest.approx(1.9))
    assert (found.accuracy, found.macs) == (0.5, 0.5)


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr("benchmarks.digits.RESAMPLES", 200)


def test_the_table_says_where_a_baseline_wins(few_resamples):
    def row(scorer: str, keep: int, mean: float, seed: int = 0) -> dict[str, object]:
        rest = {"worst_tenth": mean, "best": mean, "accuracy": 0.9, "macs": 0.5}
        return {"seed": seed, "scorer": scorer, "keep": keep, "draw": 0, "mean": mean, **rest}

    scorers = {"alpha": 0.3, "nwot": 0.1, "random": 0.2, "flops_order": 0.25}
    rows = [
        row(name, keep, value + seed, seed)
        for keep in trims.KEEPS
        for name, value in scorers.items()
        for seed in (0, 1)
    ]
    text = shown(trims.table({"trained": 5, "qualities": rows})).splitlines()
    assert sum("random and flops_order better" in line and "alpha" in line for line in text) == 3
    assert all("better" not in line for line in text if "nwot" in line)
    assert any("-0.100 [-0.100, -0.100]" in line for line in text if "nwot" in line)


class Inline:
    """Does at once what a pool of processes would, with what pickling makes of it."""

    def __init__(self, workers, mp_context):
        assert (workers, mp_context.get_start_method()) == (1, "spawn")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def map(self, function, *arguments, chunksize):
        sent = pickle.dumps([(function, one) for one in zip(*arguments, strict=True)])
        return [call(*one) for call, one in pickle.loads(sent)]


def test_e2_trims_samples_and_trains(monkeypatch, few_resamples):
    monkeypatch.setattr(trims, "SIZE", size(2, 1))
    monkeypatch.setattr(trims, "ProcessPoolExecutor", Inline)
    found = trims.experiment([0], QUICK, 1, lambda wanted: iter(wanted), ("alpha", "flops_order"))
    assert {(one["scorer"], one["keep"]) for one in found["qualities"]} == {
        (scorer, keep) for scorer in ("alpha", "flops_order", "random") for keep in (3, 2, 1)
    }
    for one in found["kept"]:
        assert all(len(ops) == one["keep"] for ops in one["ops"])
    json.dumps(found)
    assert "flops_order" in shown(trims.table(found))


def test_e4_counts_noise(monkeypatch):
    monkeypatch.setattr(noise, "SIZE", size(2, 3))
    data = digits(0)
    few = replace(data, train=data.train.subset(range(64)), validation=data.validation.subset(range(32)))
    structure = trained_supernet(Darts(noise.TOYS["S4"]), noise.SIZE, few, 1, 0)
    noisy = {choice.name: torch.tensor([1.0, 0.0]) for choice in structure.choices}
    assert noise.shares(structure, noisy, "noise") == (1, 1)
    assert noise.shares(structure, {name: -value for name, value in noisy.items()}, "noise") == (0, 0)
    noisy["normal/0"] = -noisy["normal/0"]
    assert noise.shares(structure, noisy, "noise")[0] == 27 / 28
    rows = [
        {"toy": toy, "seed": 0, "scorer": "alpha", "edges": 0.5, "slots": 0.25, "seconds": 1.0} for toy in noise.TOYS
    ]
    assert "50.0" in shown(noise.table({"rows": rows}))


def test_supernets_of_e4_are_trained_once(monkeypatch, tmp_path):
    monkeypatch.setattr(noise, "SIZE", size(2, 3))
    data = digits(0)
    few = replace(data, train=data.train.subset(range(64)), validation=data.validation.subset(range(32)))
    monkeypatch.setattr(noise, "digits", lambda seed: few)
    first, again = (noise.experiment([0], QUICK, ["alpha"], ["S4"], tmp_path)["rows"] for _ in range(2))
    assert [{**row, "seconds": 0} for row in first] == [{**row, "seconds": 0} for row in again]
    assert len(list(tmp_path.glob("S4-0-*.safetensors"))) == 1
    kept, trained = (
        trained_supernet(Darts(noise.TOYS["S4"]), noise.SIZE, few, 1, 0, file).net.state_dict()
        for file in (next(tmp_path.iterdir()), None)
    )
    assert all(torch.equal(kept[name], trained[name]) for name in trained)
    assert "S2" not in shown(noise.table({"rows": first}))


class DartsNet(foreign.DartsNet):
    names = ("none", "max", "avg", "skip", "sep3")


def test_e5_recognises_and_measures(monkeypatch):
    monkeypatch.setattr(foreign, "PRIMITIVES", DartsNet.names)
    torch.manual_seed(0)
    net = DartsNet(4, 3)
    supernet = foreign.adapted(net)
    assert (len(supernet.structure.mixed), len(supernet.choices)) == (42, 28)
    images, labels = torch.randn(4, 3, 16, 16), torch.arange(4)
    half = supernet.keep({choice.name: [3, 4] for choice in supernet.choices})
    assert foreign.saved_bytes(half.net, images, labels) < foreign.saved_bytes(net, images, labels)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    saved = foreign.saved_bytes(plain, images, labels)
    assert 4 * 768 * 4 <= saved < 2 * (4 * 768 * 4 + 768 * 10 * 4)
    times = foreign.step_times({"one": net}, lambda net: foreign.step(net, images, labels), 1)
    assert times["one"] > 0
    larger = foreign.enlarged(digits(0))
    assert larger.train.images.shape == (1000, 3, 16, 16) == (1000, *larger.input_shape)


def test_the_command_knows_its_experiments(capsys):
    with pytest.raises(SystemExit):
        supernet.main(["E3"])
    assert "known: E2, E4, E5" in capsys.readouterr().err


def test_e5_runs_as_a_command(monkeypatch, tmp_path):
    measured = {
        "mixed": 42, "mixed_expected": 42, "choices": 28, "choices_expected": 28, "gates_difference": 0.0,
        "macs_after": 50, "macs_predicted": 50, "macs_budget": 60, "flops_share": 0.5, "step_share": 0.5,
        "memory_share": 0.9, "test_before": 0.9, "test_trimmed": 0.5, "test_tuned": 0.9,
    }  # fmt: skip
    monkeypatch.setattr(foreign, "experiment", lambda seed, effort: measured)
    supernet.main(["E5", "--quick", "--json", str(tmp_path / "found.json")])
    assert json.loads((tmp_path / "found.json").read_text())["E5"]["macs_after"] == 50
    text = shown(foreign.table(measured))
    assert next(line for line in text.splitlines() if "bytes saved" in line).split("│")[4].strip() == "no"
    assert next(line for line in text.splitlines() if "seconds" in line).split("│")[4].strip() == "yes"
