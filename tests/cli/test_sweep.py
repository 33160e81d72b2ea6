"""`nasprune search --sweep`: a run for each budget, each as if searched alone, one page and one table of all."""

from __future__ import annotations

import json
import re

import pytest

from nasprune.run import charts
from nasprune.run.sweep_page import html
from tests.toys import tiny_report

TOY = ["search", "--model", "tests.toys:tiny_net", "--trials", "3"]


def test_a_run_for_each_budget(command, tmp_path):
    code, out, err = command(*TOY, "--sweep", "80%, 60%", "--out", "all")
    assert code == 0, err
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["all/60pct", "all/80pct"]
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"60pct", "80pct", "run.toml", "sweep.html"}
    assert 'href="60pct/report.html"' in (tmp_path / "all" / "sweep.html").read_text()
    assert 'sweep = "80%, 60%"' in (tmp_path / "all" / "run.toml").read_text()
    assert command("compare", "all")[1].splitlines()[:4] == out.splitlines()[:4]
    assert out.splitlines()[-2:] == [
        "show     nasprune show all/60pct",
        "export   nasprune export all/60pct --format onnx --model tests.toys:tiny_net",
    ]
    assert err.count("No weights were given") == 1
    assert command("show", "all")[1] == out
    shown = json.loads(command("show", "all", "--json")[1])
    assert shown == json.loads(command("compare", "all", "--json")[1])
    code, out, _ = command(*TOY, "--budget", "60%", "--out", "alone")
    assert "nasprune export alone --format onnx --model tests.toys:tiny_net" in out
    plans = [(tmp_path / name / "plan.json").read_bytes() for name in ("all/60pct", "alone")]
    assert plans[0] == plans[1]
    code, out, err = command("search", "--config", "all/run.toml", "--json", "--quiet")
    assert (code, err) == (0, "")
    assert [run["folder"] for run in json.loads(out)["runs"]] == ["all/60pct", "all/80pct"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sweep", "60%", "--budget", "60%"], "--budget and --sweep both give budgets"),
        (["--sweep", ","], "a sweep needs budgets"),
        (["--sweep", "60%,60%"], "twice"),
        (["--sweep", "60%,many"], "'many' does not parse"),
    ],
)
def test_what_cannot_be_swept_is_one_line(command, tmp_path, options, message):
    code, out, err = command(*TOY, *options)
    assert (code, out) == (2, "")
    assert message in err.strip().splitlines()[-1]
    assert not list(tmp_path.iterdir())


def test_the_page_has_scores_and_accuracies(monkeypatch):
    monkeypatch.setattr(charts, "available", lambda: True)
    monkeypatch.setattr(charts, "library", lambda: "")
    measured = {"test accuracy dense": 0.9, "test accuracy cut": 0.7}
    page = html({"half": tiny_report(measured=measured), "odd <name>": tiny_report()})
    assert "Cost against score" in page
    assert "Cost against accuracy before training" in page
    assert 'href="odd%20%3Cname%3E/report.html"' in page
    assert "Cost against accuracy" not in html({"half": tiny_report(measured={})})


def test_names_of_budgets_stand_beside_the_axis_and_not_on_it(monkeypatch):
    monkeypatch.setattr(charts, "available", lambda: True)
    monkeypatch.setattr(charts, "library", lambda: "")
    found = re.search(r'id="charts">(.*?)</script>', html({"half": tiny_report(), "less": tiny_report()}))
    left, right = json.loads(found[1])["scores"]["layer"][2:]
    assert (left["transform"], left["mark"]["align"]) == ([{"filter": "datum.FLOPs <= 1500.0"}], "left")
    assert (right["transform"], right["mark"]["align"]) == ([{"filter": "datum.FLOPs > 1500.0"}], "right")
