"""The judge: all trims of the table, the knapsack's among them, and a benchmark that runs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from benchmarks import nb201, path_draws, scoring_times
from benchmarks.judge import EDGES, OPS, Judge, by_chance, mean_of, verdict
from benchmarks.nb201_trims import BY_FLOPS, main, table_judge
from nasprune import Size
from nasprune.supernet.score.naming import op_scorer

NEEDED = ("nb201_cifar10_200ep.csv", "cifar10_train5085.npz")
pytestmark = pytest.mark.skipif(
    not all((nb201.FOLDER / name).is_file() for name in NEEDED),
    reason=f"no NAS-Bench-201 table and images in {nb201.FOLDER}; set NASPRUNE_ASSETS to the folder that holds them",
)


@pytest.fixture(scope="module")
def judge():
    return table_judge(nb201.FOLDER)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_spaces_are_the_means_of_their_networks(judge, k):
    spaces = judge.spaces[k]
    assert spaces.quality.size == {1: 4096, 2: 46656, 3: 4096}[k]
    rng = np.random.default_rng(k)
    for _ in range(20):
        at = tuple(rng.integers(len(spaces.subsets), size=EDGES))
        kept = [spaces.subsets[i] for i in at]
        assert spaces.quality[at] == pytest.approx(judge.quality[np.ix_(*kept)].mean())
        costs = [judge.base + sum(judge.costs[op] for op in ops) for ops in itertools.product(*kept)]
        assert spaces.cost[at] == pytest.approx(np.mean(costs))


def test_published_optima(judge):
    """Best mean accuracies within a budget, as others enumerated them."""
    assert judge.spaces[2].optimum(60) == pytest.approx(92.26, abs=0.01)
    assert judge.spaces[3].optimum(80) == pytest.approx(91.87, abs=0.01)


def test_chance_is_in_the_middle_and_the_best_at_the_top(judge):
    for k in (2, 3):
        assert mean_of(list(by_chance(judge, k, 60.0, draws=100)), "percentile") == pytest.approx(50, abs=8)
    spaces = judge.spaces[2]
    best = spaces.optimum(60)
    cost = float(spaces.cost[spaces.quality == best][0])
    assert spaces.percentile(best, cost) > 99


def test_what_is_kept_keeps_the_budget(judge):
    for k in (1, 2, 3):
        found = verdict(judge, BY_FLOPS, k, 60.0)
        assert sum(map(len, judge.kept(BY_FLOPS, k, 60.0))) <= k * EDGES
        assert 0 <= found.percentile <= 100
        if k == 1:
            assert found.cost <= 60
            assert found.best == found.quality


def test_a_judge_of_any_quality():
    """Where only the first edge matters, its best operation is kept."""
    quality = np.zeros((len(OPS),) * EDGES)
    quality[2] = 1.0
    judge = Judge(quality, 1.0, (0.0, 1.0, 9.0, 0.0))
    worths = np.zeros((EDGES, len(OPS)))
    worths[0, 2] = 1.0
    assert verdict(judge, worths, 1, 10.0).quality == 1.0


@pytest.mark.slow
def test_the_benchmark_runs(tmp_path, capsys):
    main(["--seeds", "0", "--epochs", "1", "--scorers", "flops_order", "--cache", str(tmp_path)])
    assert "flops_order" in capsys.readouterr().out
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_times_of_scoring_are_shown_for_every_supernet(monkeypatch, capsys):
    monkeypatch.setattr(scoring_times, "NETS", {"toy": ("nasbench201", Size(2, 1, resolution=8))})
    monkeypatch.setattr(scoring_times, "op_scorer", lambda name: op_scorer(f"{name}(paths=20)"))
    scoring_times.main(["--images", "4", "--runs", "2"])
    assert "toy" in capsys.readouterr().out


def test_selections_by_few_paths_are_judged_by_all(monkeypatch, capsys):
    def of(task):
        """What is worth something is the third candidate of every choice."""
        every = itertools.product(*(choice.connecting for choice in task.choices))
        return {path: (float(sum(op == path_draws.OPS.index("nor_conv_3x3") for op in path)),) * 2 for path in every}

    monkeypatch.setattr(path_draws, "SIZE", Size(2, 1, resolution=8))
    monkeypatch.setattr(path_draws, "proxies", of)
    path_draws.main(["--draws", "2"])
    out = capsys.readouterr().out
    assert "worths by 4096 paths" in out
    assert [line.split("│")[1].strip() for line in out.splitlines() if line.startswith("│")] == ["200", "400", "800"]
