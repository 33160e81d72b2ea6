"""What runs on the CPU runs on a GPU, gives there what it gives here, and leaves every tensor where it was.

NASPRUNE_TEST_DEVICE names another device; with `cpu` these tests run anywhere and say less.
"""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import nn

import nasprune
from nasprune.cost.flops import measure
from tests.toys import tiny_net

NAME = os.environ.get("NASPRUNE_TEST_DEVICE", "cuda")
GPU = torch.device(NAME)
EXAMPLE = torch.zeros(1, 1, 8, 8)

pytestmark = pytest.mark.skipif(
    NAME == "cuda" and not torch.cuda.is_available(), reason="needs a GPU that torch can use; NASPRUNE_TEST_DEVICE=cpu"
)


@pytest.fixture(scope="module")
def trained(few_digits_for_all):
    return nasprune.finetune(tiny_net(blocks=2), "digits", epochs=3, lr=0.1, device="cpu")


def placed(model: nn.Module, device: str = NAME) -> nn.Module:
    return copy.deepcopy(model).to(device)


def on_the_gpu(model: nn.Module) -> bool:
    return all(value.device.type == GPU.type for value in model.state_dict().values())


@pytest.fixture(autouse=True)
def _whole_single_precision(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def searched(trained):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.backends.cudnn, "allow_tf32", False)
        return [
            nasprune.search(placed(trained, device), EXAMPLE.to(device), "50%", data="digits", trials=2)
            for device in ("cpu", NAME)
        ]


def test_a_search_decides_the_same_and_refits_to_the_same_outputs(searched):
    assert on_the_gpu(searched[1].model)
    assert searched[1].plan.drop == searched[0].plan.drop
    assert searched[1].plan.keep == searched[0].plan.keep
    inputs = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        here, there = searched[0].model(inputs), searched[1].model(inputs.to(GPU)).cpu()
    assert float((here - there).norm() / here.norm()) < 1e-3


def test_a_search_without_data(trained):
    found = nasprune.search(placed(trained), EXAMPLE.to(GPU), "50%")
    assert found.report.proof.ok
    assert on_the_gpu(found.model)
    assert measure(found.model, EXAMPLE.to(GPU)).flops <= 0.5 * found.report.dense.flops


def test_a_result_is_saved_on_the_gpu_and_loaded_on_the_cpu(searched, tmp_path):
    nasprune.save(searched[1], tmp_path)
    loaded = nasprune.load(tmp_path, model=tiny_net(1, blocks=2))
    with torch.no_grad():
        there = searched[1].model(EXAMPLE.to(GPU)).cpu()
        assert torch.allclose(loaded(EXAMPLE), there, rtol=1e-4, atol=1e-5)


def test_polishing_and_fine_tuning_stay_on_the_gpu(trained, searched):
    dense = placed(trained)
    polished = nasprune.polish(searched[1], dense, "digits", steps=20)
    assert on_the_gpu(polished.model)
    tuned = nasprune.finetune(polished.model, "digits", teacher=dense, epochs=1, device=NAME)
    assert on_the_gpu(tuned)
    assert all(value.isfinite().all() for value in tuned.state_dict().values())


@pytest.mark.parametrize("strategy", ["soft", "slimming", "greg", "csgd", "hard", "resrep", "morphnet"])
def test_strategies_train_on_the_gpu(trained, strategy):
    found = nasprune.prune(
        placed(trained), EXAMPLE.to(GPU), "60%", data="digits", epochs=2, strategy=strategy, device=NAME, batch_size=50
    )
    assert found.report.proof.ok
    assert on_the_gpu(found.model)


def test_a_latency_budget_is_kept_there(trained):
    found = nasprune.search(placed(trained), EXAMPLE.to(GPU), "90% latency", batch=8)
    assert found.report.proof.ok
    assert found.report.measured["latency_ms cut"] > 0


def test_criteria_score_there_what_they_score_here(trained):
    graph = nasprune.trace(trained, EXAMPLE)
    group = graph.free_groups[0].name
    for criterion in ("l1", "taylor", "obd", "thinet", "nisp", "apoz", "obs", "kse"):
        plans = [
            nasprune.search(
                placed(trained, device), EXAMPLE.to(device), "60%", data="digits", criterion=criterion, trials=1
            ).plan
            for device in ("cpu", NAME)
        ]
        assert len(plans[0].keep.get(group, ())) == len(plans[1].keep.get(group, ())), criterion


@pytest.mark.skipif(NAME != "cuda", reason="torch has kernels for 2:4 zeros on CUDA devices only")
def test_two_of_four_zeros_run_in_torchs_own_format():
    net = nn.Sequential(nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)).to(GPU, torch.bfloat16)
    with torch.no_grad():
        net[0].weight.view(-1, 4)[:, 1:3] = 0
    fast = nasprune.semi_structured(net)
    assert fast.layers == ("0",)
    x = torch.randn(64, 128, device=GPU, dtype=torch.bfloat16)
    with torch.no_grad():
        assert (fast.model(x) - net(x)).float().norm() <= 0.02 * net(x).float().norm()


@pytest.mark.usefixtures("one_draw", "few_paths")
@pytest.mark.parametrize("scorer", ["paths", "perturbation", "synflow", "alpha"])
def test_a_supernet_is_trimmed_there(scorer, tmp_path):
    space = nasprune.supernet_space("nasbench201")
    torch.manual_seed(0)
    supernet = space.supernet(nasprune.Size(channels=4, layers=1, channels_in=1, resolution=8)).to(GPU)
    looked_at = nasprune.Supernet.from_model(supernet, torch.randn(2, 1, 8, 8, device=GPU), space=space)
    few = torch.randn(64, 1, 8, 8), torch.arange(64) % 10
    trimmed = looked_at.trim("50%", scorer, data=few)
    assert on_the_gpu(trimmed.model)
    with torch.no_grad():
        assert trimmed.model(torch.randn(2, 1, 8, 8, device=GPU)).device.type == GPU.type
