from __future__ import annotations

import random
import sys
import time
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nasprune.cost.flops import measure
from nasprune.errors import BudgetError, InputError, PluginError, UnknownNameError
from nasprune.run import search as story
from nasprune.space.trials import pareto_front
from tests.forks import forked
from tests.nets import EXAMPLE, TinyResNet, images

search = partial(story.search, allow_chance=True)  # the nets of these tests know nothing
QUICK = {"trials": 40, "space_options": {"divisor": 2}}


@pytest.fixture(scope="module")
def result():
    return search(TinyResNet(), EXAMPLE, "60%", **QUICK)


def test_the_cut_network_keeps_its_promises(result):
    dense = measure(TinyResNet(), EXAMPLE)
    cost = measure(result.model, EXAMPLE)
    assert cost == result.report.cut
    assert result.report.dense == dense
    assert 0.55 * dense.flops < cost.flops <= 0.6 * dense.flops
    assert result.report.proof.ok
    assert result.model(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert 0 < result.report.score < result.report.dense_score == pytest.approx(1.0)


def test_the_report_can_be_read_back_and_matches_the_plan(result):
    report = result.report
    assert type(report).from_json(report.to_json()) == report
    kept = {group.name: group.kept for group in report.groups if group.kept not in (0, group.width)}
    assert kept == {name: len(units) for name, units in result.plan.keep.items()}
    assert report.trials == len(result.trials) == 40
    assert report.settings["controller"] == "evolution"
    assert report.settings["evaluator"] == "importance"
    assert set(report.measured) == {"latency_ms dense", "latency_ms cut"}
    front = [result.trials[point.trial] for point in report.front]
    assert [(trial.decision.digest, trial.cost, trial.score) for trial in front] == [
        (point.decision, point.cost, point.score) for point in report.front
    ]
    assert tuple(front) == pareto_front(result.trials)
    assert report.front[-1].score == report.score


def test_search_beats_the_uniform_plan(result):
    uniform = search(TinyResNet(), EXAMPLE, "60%", controller="uniform", **QUICK)
    assert uniform.report.trials == 1
    assert result.report.score > uniform.report.score


@pytest.mark.parametrize("options", [{}, {"data": images(80), "trials": 6}], ids=["importance", "accuracy"])
def test_model_mode_and_generators_are_left_alone_and_the_plan_depends_on_the_seed_alone(options):
    model = TinyResNet().train()
    model.blocks[1].eval()
    modes = [module.training for module in model.modules()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    plans = []
    for noise in (1, 2):
        random.seed(noise)
        np.random.seed(noise)  # noqa: NPY002
        torch.manual_seed(noise)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        found = search(model, EXAMPLE, "50%", seed=7, **{**QUICK, **options})
        after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
        assert before[:2] == after[:2]
        assert torch.equal(before[2], after[2])
        plans.append(found.plan.to_json())
    assert plans[0] == plans[1]
    assert modes == [module.training for module in model.modules()]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


CONTROLLERS = ["random", "evolution", "nni:TPE", "nni:Evolution", "nni:Random", "optuna:TPE", "optuna:NSGA2"]


@pytest.mark.parametrize("controller", CONTROLLERS)
def test_an_interrupted_search_ends_as_an_unbroken_one(tmp_path, controller):
    options = {**QUICK, "controller": controller, "seed": 3}
    whole = search(TinyResNet(8, 2), EXAMPLE, "50%", **options, out=tmp_path / "whole")
    for keep in (1, 2, 17, 41):
        folder = tmp_path / f"cut{keep}"
        folder.mkdir()
        lines = (tmp_path / "whole" / "trials.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "trials.jsonl").write_bytes(b"".join(lines[:keep]) + lines[keep][:30])
        again = search(TinyResNet(8, 2), EXAMPLE, "50%", **options, out=folder)
        assert again.plan.to_json() == whole.plan.to_json()
        assert [t.decision for t in again.trials] == [t.decision for t in whole.trials]


@pytest.fixture(scope="module")
def automatic(tmp_path_factory):
    """The controller `auto` with data, 5 trials, and its folder."""
    folder = tmp_path_factory.mktemp("auto")
    return folder, search(TinyResNet(), EXAMPLE, "50%", data=images(80), **{**QUICK, "trials": 5}, out=folder)


def test_with_data_and_no_limits_the_knapsacks_decision_is_taken(automatic):
    options = {"data": images(80), "space_options": {"divisor": 2}}
    alone = search(TinyResNet(), EXAMPLE, "50%", controller="sensitivity", **options)
    default = search(TinyResNet(), EXAMPLE, "50%", **options)
    assert alone.report.trials == default.report.trials == 1
    assert default.report.settings["controller"] == "auto"
    assert default.plan == alone.plan
    _, longer = automatic
    assert longer.report.trials == 5
    assert longer.trials[0].decision == alone.decision
    assert len({trial.decision.digest for trial in longer.trials}) > 1
    assert longer.report.score >= default.report.score


def test_auto_goes_on_where_it_was_interrupted(automatic, tmp_path):
    folder, whole = automatic
    lines = (folder / "trials.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "trials.jsonl").write_bytes(b"".join(lines[:4]))
    again = search(TinyResNet(), EXAMPLE, "50%", data=images(80), **{**QUICK, "trials": 5}, out=tmp_path)
    assert [trial.decision for trial in again.trials] == [trial.decision for trial in whole.trials]


@pytest.mark.parametrize("evaluator", ["kl", "loss"])
def test_mean_losses_score_a_search(evaluator):
    options = {"data": images(80), "evaluator": evaluator, "controller": "uniform", "space_options": {"divisor": 2}}
    found = search(TinyResNet(), EXAMPLE, "50%", **options)
    assert found.report.score < 0
    if evaluator == "kl":
        assert found.report.score < found.report.dense_score <= 0


def test_global_uses_the_criterions_scores():
    found = [search(TinyResNet(), EXAMPLE, "50%", controller="global", criterion=name) for name in ("l2", "random")]
    assert [one.report.trials for one in found] == [1, 1]
    assert found[0].decision != found[1].decision


def test_a_missing_package_is_named_before_anything_is_scored(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.setattr(
        "nasprune.calibration.scoring.Scorer.scores", lambda *arguments, **options: pytest.fail("scored")
    )
    with pytest.raises(InputError, match="pip install"):
        search(TinyResNet(), EXAMPLE, "50%", controller="optuna:TPE")


def test_kill_and_resume(tmp_path):
    options = {"trials": 200, "space_options": {"divisor": 2}}
    run = forked(lambda: search(TinyResNet(), EXAMPLE, "50%", **options, out="run"), tmp_path)
    record = tmp_path / "run" / "trials.jsonl"
    while run.process.is_alive() and (not record.exists() or record.read_bytes().count(b"\n") < 30):
        time.sleep(0.01)
    run.process.kill()
    assert "Traceback" not in run.ended()
    assert record.read_bytes().count(b"\n") >= 30
    resumed = search(TinyResNet(), EXAMPLE, "50%", **options, out=tmp_path / "run")
    whole = search(TinyResNet(), EXAMPLE, "50%", **options)
    assert resumed.plan.to_json() == whole.plan.to_json()


def test_a_repeated_decision_is_not_evaluated_again(tmp_path):
    (tmp_path / "counting.py").write_text(
        "from nasprune import Evaluator\nCALLS = []\n"
        "class Counting(Evaluator):\n"
        "    def __init__(self, task): CALLS.clear()\n"
        "    def evaluate(self, candidate):\n"
        "        CALLS.append(candidate.decision.digest)\n        return float(len(candidate.keep))\n"
    )
    options = {"space_options": {"divisor": 16, "blocks": True}, "trials": 60}
    found = search(TinyResNet(), EXAMPLE, "70%", evaluator="counting", plugins=tmp_path, **options)
    from nasprune import registry

    calls = sys.modules[registry.load("evaluators", "counting", tmp_path).__module__].CALLS[:-1]
    assert len(calls) == len(set(calls)) == len({t.decision.digest for t in found.trials}) < 60


def test_what_fails_its_proof_is_frozen_and_the_search_repeated(tmp_path, monkeypatch):
    from dataclasses import replace

    from nasprune.run import rounds

    honest = rounds.prove
    victim = "blocks.0.conv1"

    def picky(model, graph, plan):
        if victim not in plan.keep:
            return honest(model, graph, plan)
        rest = replace(plan, keep={name: units for name, units in plan.keep.items() if name != victim})
        proven = honest(model, graph, rest)
        return replace(proven, proof=replace(proven.proof, frozen={victim: "a trial cut fails"}))

    monkeypatch.setattr(rounds, "prove", picky)
    options = {**QUICK, "space_options": {"divisor": 2, "blocks": False}, "out": tmp_path}
    found = search(TinyResNet(), EXAMPLE, "50%", **options)
    assert victim not in found.plan.keep
    assert any(victim in note for note in found.report.notes)
    assert found.report.cut.flops <= 0.5 * found.report.dense.flops
    assert found.graph.group(victim).frozen_because == "a trial cut fails"
    again = search(TinyResNet(), EXAMPLE, "50%", **options)
    assert again.plan.to_json() == found.plan.to_json()


def test_time_limit_and_progress(monkeypatch):
    seen = []
    clock = SimpleNamespace(monotonic=lambda: len(seen) * 0.03, perf_counter=lambda: 0.0)
    monkeypatch.setattr("nasprune.run.exploration.time", clock)
    found = search(TinyResNet(), EXAMPLE, "50%", time_limit=0.2, on_progress=seen.append)
    assert len(seen) == found.report.trials == 7, "the eighth would start after 0.21 seconds"
    assert [progress.index for progress in seen] == list(range(len(seen)))
    assert seen[-1].best_score == found.report.score
    assert seen[-1].total is None


def test_include_and_exclude_are_respected():
    found = search(TinyResNet(), EXAMPLE, "80%", include=["blocks.*"], exclude=["blocks.1*"], **QUICK)
    assert all(name.startswith("blocks.0") for name in [*found.plan.keep, *found.plan.drop])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"budget": "2 apples"}, BudgetError, "write for example"),
        ({"budget": "1KFLOPs"}, BudgetError, "least reachable"),
        ({"criterion": "l3"}, UnknownNameError, "did you mean"),
        ({"controller": "evolve"}, UnknownNameError, "unknown controller"),
        ({"evaluator": "accuracy"}, InputError, "needs data"),
        ({"space": "width"}, UnknownNameError, "widths"),
        ({"trials": 0}, InputError, "at least 1"),
        ({"budget": 0.5}, BudgetError, "expected a budget such as 2GFLOPs.* got 0.5"),
        ({"budget": "half"}, BudgetError, "write for example 2GFLOPs"),
        ({"data": (torch.zeros(20, 1, 8, 8), torch.zeros(20).long())}, InputError, r"\(3, 8, 8\), data .* \(1, 8, 8\)"),
        ({"data": (torch.full((20, 3, 8, 8), torch.nan), torch.zeros(20).long())}, InputError, "image 0 holds NaN"),
        ({"time_limit": 0}, InputError, "above 0"),
        ({"include": ["nothing*"]}, InputError, "matches no group"),
        ({"plugins": "/nowhere/at/all"}, InputError, "does not exist"),
    ],
)
def test_bad_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        search(TinyResNet(), EXAMPLE, **{"budget": "50%", **options})


def test_a_folder_of_another_run_is_refused_before_anything_is_lost(tmp_path):
    search(TinyResNet(), EXAMPLE, "50%", trials=2, out=tmp_path)
    content = (tmp_path / "trials.jsonl").read_bytes()
    with pytest.raises(InputError, match="budget: 50% of FLOPs there, 60% of FLOPs now"):
        search(TinyResNet(), EXAMPLE, "60%", trials=2, out=tmp_path)
    with pytest.raises(InputError, match=r"another run \(weights: "):
        search(TinyResNet(seed=1), EXAMPLE, "50%", trials=2, out=tmp_path)
    assert (tmp_path / "trials.jsonl").read_bytes() == content


class Detector(torch.nn.Module):
    """A backbone that can be traced inside code that cannot."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = TinyResNet()

    def forward(self, x):
        found = self.backbone(x)
        return [row for row in found if float(row.detach().sum()) > 0]


def test_a_scope_is_cut_inside_its_model():
    found = search(Detector(), EXAMPLE, "60%", scope="backbone", **QUICK)
    assert found.plan.scope == "backbone"
    assert found.report.proof.ok
    assert isinstance(found.model(torch.randn(2, 3, 8, 8)), list)
    assert measure(found.model.backbone, EXAMPLE) == found.report.cut


def test_an_impossible_budget_leaves_no_folder(tmp_path):
    with pytest.raises(BudgetError):
        search(TinyResNet(), EXAMPLE, "0.01%", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("answer", ["float('nan')", "None", "1 / 0"])
def test_an_evaluator_that_breaks_its_contract_is_named(tmp_path, answer):
    (tmp_path / "broken.py").write_text(
        "from nasprune import Evaluator\nclass Broken(Evaluator):\n    def __init__(self, task): pass\n"
        f"    def evaluate(self, candidate): return {answer}\n"
    )
    with pytest.raises(PluginError, match="evaluator `Broken`"):
        search(TinyResNet(), EXAMPLE, "50%", evaluator="broken", plugins=tmp_path)


def test_a_run_goes_on_only_with_its_own_data_and_evaluator(tmp_path):
    x, y = images()
    options = {"controller": "uniform", "criterion": "l2", "reconstruct": "none", "trials": 1}
    with_data = {**options, "evaluator": "loss", "out": tmp_path / "data"}
    first = search(TinyResNet(), EXAMPLE, "50%", data=(x, y), **with_data)
    assert search(TinyResNet(), EXAMPLE, "50%", data=(x, y), **with_data).report.score == first.report.score
    with pytest.raises(InputError, match=r"another run.*images"):
        search(TinyResNet(), EXAMPLE, "50%", data=(x + 1, y), **with_data)

    for number, text in enumerate(("1.0", "2.0")):
        own = tmp_path / str(number) / "own.py"
        own.parent.mkdir()
        own.write_text(f"def score(model):\n    return {text}\n")
    with_function = {**options, "out": tmp_path / "function"}
    search(TinyResNet(), EXAMPLE, "50%", data=(x, y), evaluator=f"{tmp_path}/0/own.py:score", **with_function)
    (tmp_path / "1" / "own.py").rename(tmp_path / "0" / "own.py")
    forget = [name for name in sys.modules if name.startswith("nasprune_user_own")]
    for name in forget:
        del sys.modules[name]
    with pytest.raises(InputError, match=r"another run.*evaluator's code"):
        search(TinyResNet(), EXAMPLE, "50%", data=(x, y), evaluator=f"{tmp_path}/0/own.py:score", **with_function)


def test_a_time_limit_is_a_number_above_zero():
    for limit in (0.0, float("nan")):
        with pytest.raises(InputError, match="seconds above 0"):
            search(TinyResNet(), EXAMPLE, "50%", time_limit=limit)


def test_weights_that_are_no_numbers_are_named():
    model = TinyResNet()
    with torch.no_grad():
        model.head.weight[1, 2] = torch.nan
    with pytest.raises(InputError, match=r"'head.weight' holds NaN"):
        search(model, EXAMPLE, "50%")


def test_inputs_that_are_no_images_are_searched_without_data():
    model = torch.nn.Bilinear(4, 4, 2)
    pair = (torch.zeros(1, 4), torch.zeros(1, 4))
    with pytest.raises(InputError, match="the model takes 2 inputs"):
        search(model, pair, "50%", data=(torch.zeros(20, 4), torch.zeros(20).long()))


class Both(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = TinyResNet()

    def forward(self, x):
        found = self.net(x)
        return {"classes": found, "sum": found.sum(1)}


@pytest.mark.parametrize("evaluator", ["auto", "kl"])
def test_of_several_outputs_the_first_is_scored(evaluator):
    data = images(60)
    alone = search(TinyResNet(), EXAMPLE, "60%", data=data, evaluator=evaluator)
    both = search(Both(), EXAMPLE, "60%", data=data, evaluator=evaluator)
    assert both.report.score == alone.report.score
    assert both.report.cut == alone.report.cut


def test_a_function_of_ones_own_scores():
    result = search(TinyResNet(), EXAMPLE, "60%", trials=2, evaluator=lambda net: -net.head.weight.shape[1])
    assert result.report.score == -result.model.head.weight.shape[1]
    assert "lambda" in result.report.settings["evaluator"]


def test_a_budget_that_the_model_keeps_cuts_nothing_and_says_so():
    result = search(TinyResNet(), EXAMPLE, "1GFLOPs", data=images(60))
    assert not result.plan.keep
    assert result.report.cut == result.report.dense
    assert any("Nothing was cut" in note for note in result.report.notes)


def test_a_run_that_ends_before_its_first_trial_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="the label 9, the model 4 outputs"):
        search(TinyResNet(), EXAMPLE, "60%", data=(images(60)[0], torch.full((60,), 9)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_is_printed_is_short(result):
    assert "Conv2d" not in repr(result)
