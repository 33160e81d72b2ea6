"""The networks on the way of a search stand side by side: what cutting costs, and what refitting and polishing give."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from nasprune.run.page import html
from nasprune.run.report import SearchReport
from nasprune.run.reporting import markdown
from nasprune.run.rungs import by_net, heading, nets_of
from nasprune.run.search import search
from nasprune.train.measures import accuracy
from nasprune.train.polish import polish
from tests.nets import EXAMPLE, TinyResNet
from tests.toys import tiny_report

IMAGES = torch.randn(120, *EXAMPLE.shape[1:], generator=torch.Generator().manual_seed(1))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("nasprune.run.polishing.polish", partial(polish, steps=16, batch_size=16))


@pytest.fixture
def dense():
    torch.manual_seed(0)
    return TinyResNet().eval()


def found(dense, labels, **options):
    return search(dense, EXAMPLE, "60%", data=(IMAGES, labels), allow_chance=True, **options)


def test_each_step_is_measured_on_validation_images(dense, quick) -> None:
    with torch.no_grad():
        labels = dense(IMAGES).argmax(1)
    result = found(dense, labels, polish=True)
    measured = by_net(result.report)
    assert list(measured["validation accuracy"]) == ["dense", "not-refitted", "refitted", "cut"]
    assert list(measured["divergence"]) == ["not-refitted", "refitted", "cut"]
    assert measured["validation accuracy"]["dense"] == 1
    assert measured["divergence"]["refitted"] < measured["divergence"]["not-refitted"]
    assert SearchReport.from_json(result.report.to_json()) == result.report


def test_without_polish_the_cut_network_is_the_refitted_one(dense) -> None:
    from nasprune.data import load_data

    labels = torch.arange(120) % 4
    result = found(dense, labels, evaluator="kl")
    measured = by_net(result.report)
    assert list(measured["validation accuracy"]) == ["dense", "not-refitted", "cut"]
    held = load_data((IMAGES, labels), seed=0).validation
    assert measured["validation accuracy"]["cut"] == pytest.approx(accuracy(result.model, held))
    assert measured["divergence"]["cut"] == pytest.approx(-result.report.score, abs=1e-6)


def test_without_labels_there_are_divergences_alone(dense) -> None:
    measured = by_net(found(dense, torch.full((120,), -1), evaluator="kl", reconstruct="none").report)
    assert "validation accuracy" not in measured
    assert list(measured["divergence"]) == ["cut"]


def test_a_page_shows_every_rung_under_its_name() -> None:
    accuracies = {"dense": 0.9, "not-refitted": 0.3, "refitted": 0.7, "cut": 0.8}
    measured = {f"validation accuracy {net}": value for net, value in accuracies.items()}
    report = tiny_report(measured={**measured, "divergence after polish": 0.1})
    assert nets_of(report) == list(accuracies)
    page = html(report, folder="x")
    head = "".join(f'<th class="number">{net}</th>' for net in ("dense", "not-refitted", "refitted", "cut, polished"))
    assert head in page
    assert "| validation accuracy | 90.0% | 30.0% | 70.0% | 80.0% |" in markdown(report)
    tuned = tiny_report(measured={**measured, "test accuracy cut": 0.75, "test accuracy fine-tuned": 0.85})
    assert "test accuracy, fine-tuned" in html(tuned, folder="x")
    assert "validation accuracy, cut" not in html(tuned, folder="x")
    assert heading(tiny_report(), "cut") == "cut"
