"""`report.html`: all that a report says is there, escaped, without a network, and a browser draws the charts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from nasprune.common.phases import PhaseCost
from nasprune.cost.budget import Cost
from nasprune.cut.proof import Proof
from nasprune.run import charts
from nasprune.run.notes import SEEN
from nasprune.run.page import html
from nasprune.run.report import FrontPoint, GroupOutcome
from nasprune.run.reporting import markdown
from nasprune.space.choices import Decision
from nasprune.space.trials import Trial
from tests.toys import tiny_report

TRIALS = tuple(
    Trial(index, Decision.of({"conv1": 4 + index}), Cost(700 + 100 * index, 30, 100), 0.6 + 0.1 * index, 0.1)
    for index in range(4)
)
HARMS = {"conv1": {4: 0.5, 8: 0.1, 16: 0.0}, "layer1.1": {0: 0.2, 1: 0.0}}
REPORT = tiny_report(
    front=tuple(FrontPoint(trial.index, trial.decision.digest, trial.cost, trial.score) for trial in TRIALS),
    cut=TRIALS[3].cost,
    score=TRIALS[3].score,
)
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Read(HTMLParser):
    """The tags that are open at the end, and all text outside of scripts and styles."""

    def __init__(self, page):
        super().__init__()
        self.open, self.words, self.addresses = [], [], []
        self.feed(page)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)


@pytest.fixture
def drawn(monkeypatch):
    """Charts are drawn, by a library of one line."""
    monkeypatch.setattr(charts, "available", lambda: True)
    monkeypatch.setattr(charts, "library", lambda: "window.vegaEmbed = () => {};")


def specs(page):
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(found[1]) if found else {}


def test_the_page_says_what_the_report_says(drawn):
    page = Read(html(REPORT, folder="runs/x", trials=TRIALS, harms=HARMS))
    assert (page.open, page.addresses) == ([], [])
    for words in (
        "tests.toys:tiny_net within 50% of FLOPs",
        "50.0% of the FLOPs",
        "No weights were given.",
        "conv1 16 8 50.0%",
        "Blocks removed layer1.1",
        "linear network output",
        "The cut is proved",
        'small = nasprune.load("runs/x", model=tiny_net())',
        "It was made from Python",
    ):
        assert words in page.text, words


def test_light_and_dark_and_no_network(drawn):
    page = html(REPORT, folder="runs/x", trials=TRIALS, harms=HARMS)
    assert "prefers-color-scheme: dark" in page
    assert "default-src 'none'" in page
    assert "http://" not in page


def test_charts_hold_trials_front_harms_and_blocks(drawn):
    found = specs(html(REPORT, folder="x", trials=TRIALS, harms=HARMS))
    assert set(found) == {"trials", "curves", "blocks"}
    trials = {row["trial"]: row["which"] for row in found["trials"]["data"]["values"]}
    assert trials == {0: "on the front", 1: "on the front", 2: "on the front", 3: "the result"}
    curves = found["curves"]["data"]["values"]
    assert [(row["kept"], row["harm"], row["chosen"]) for row in curves] == [(4, 0.5, False), (8, 0.1, True)]
    assert found["blocks"]["data"]["values"] == [{"block": "layer1.1", "harm": 0.2, "which": "removed"}]


def test_harms_that_are_nothing_do_not_stretch_the_axis(drawn):
    harms = {"conv1": {4: 2.0, 8: 1e-18}}
    layers = specs(html(REPORT, folder="x", harms=harms))["curves"]["layer"]
    assert layers[0]["encoding"]["y"]["scale"]["domain"] == [2e-5, 2.0]


def test_groups_have_colours_and_a_legend_and_the_axis_has_lines_at_powers_of_ten(drawn):
    harms = {"conv1": {4: 0.5, 8: 0.002}}
    lines = specs(html(REPORT, folder="x", harms=harms))["curves"]["layer"][0]["encoding"]
    assert lines["y"]["axis"]["values"] == pytest.approx([0.01, 0.1])
    assert lines["color"]["scale"]["domain"] == ["conv1"]
    assert lines["color"]["legend"]["orient"] == "right"
    many = {f"group{number}": {4: 0.5} for number in range(1 + len(charts.COLORS))}
    groups = tuple(GroupOutcome(name, 16, 8) for name in many)
    lines = specs(html(replace(REPORT, groups=groups), folder="x", harms=many))["curves"]["layer"][0]["encoding"]
    assert lines["color"]["legend"] is None


def test_charts_are_as_wide_as_the_text_and_alone_as_wide_as_each_other(drawn):
    page = html(REPORT, folder="x", trials=TRIALS, harms=HARMS)
    assert 'width: "container"' in page
    assert {chart["width"] for chart in specs(page).values()} == {charts.WIDTH}
    assert {chart["autosize"]["type"] for chart in specs(page).values()} == {"fit-x"}


def test_notes_are_said_once_and_three_are_open():
    notes = ("Use `fit(x)` first.", SEEN.format("validation"), "A `tick", "Last <one>.", SEEN.format("test"), "A `tick")
    page = html(replace(REPORT, notes=notes), folder="x")
    shown, folded = page.split("<summary>1 more note</summary>")
    assert "<li>Use <code>fit(x)</code> first.</li>" in shown
    assert "right on every validation and test image." in shown
    assert page.count("right on every") == 1
    assert shown.count("<li>") == 3
    assert "<li>A `tick</li>" in shown
    assert folded.startswith("<ul><li>Last &lt;one&gt;.</li></ul>")
    assert markdown(replace(REPORT, notes=notes)).count("right on every") == 1
    assert "more note" not in html(replace(REPORT, notes=notes[:3]), folder="x")


def test_without_trials_and_harms_there_are_no_charts(drawn):
    page = html(REPORT, folder="x")
    assert "<script" not in page
    assert charts.MISSING not in page


def test_without_the_package_it_is_said(monkeypatch):
    monkeypatch.setattr(charts, "available", lambda: False)
    page = html(REPORT, folder="x", trials=TRIALS, harms=HARMS)
    assert "<script" not in page
    assert "pip install 'nasprune[plots]'" in Read(page).text


def test_what_was_fine_tuned_stands_beside(drawn):
    measured = {"test accuracy dense": 0.9, "test accuracy cut": 0.5, "test accuracy fine-tuned": 0.8}
    settings = {"model": "torchvision:resnet18", "weights from": "none"}
    page = Read(html(replace(REPORT, measured=measured, settings=settings), folder="x"))
    assert "test accuracy 90.0% 50.0% 80.0%" in page.text
    assert "nasprune finetune --config x/run.toml --out again" in page.text


def test_names_are_no_html(drawn):
    evil = "<img src=x onerror=alert(1)></script><script>"
    report = replace(REPORT, settings={"model": evil}, notes=(evil,), dropped_blocks=(evil,))
    report = replace(report, proof=Proof(True, 0.0, 1e-9, "float64", 1, 1, frozen={evil: evil}))
    harms = {**HARMS, evil: {0: 1.0, 1: 0.0}}
    page = html(report, folder=evil, trials=TRIALS, harms=harms)
    assert evil not in page
    assert page.count("<img") == 0
    assert page.count("<script") == 2
    assert Read(page).open == []
    assert specs(page)["blocks"]["data"]["values"][1]["block"] == evil


def test_the_library_is_made_once_and_kept(monkeypatch, tmp_path):
    vl_convert = pytest.importorskip("vl_convert")
    made = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda: made.append(1) or "the library")
    for _ in range(2):
        charts.library.cache_clear()
        assert charts.library() == "the library"
    charts.library.cache_clear()
    assert made == [1]


@pytest.mark.skipif(BROWSER is None, reason="no chromium here to draw the page")
def test_a_browser_draws_the_charts(tmp_path):
    pytest.importorskip("vl_convert")
    (tmp_path / "report.html").write_text(html(REPORT, folder="x", trials=TRIALS, harms=HARMS))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--enable-logging=stderr"]
    command = [BROWSER, *options, f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{tmp_path}/report.html"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count('<svg xmlns="http://www.w3.org/2000/svg"') == 3
    assert "CONSOLE" not in done.stderr


def test_what_each_phase_took_is_there():
    report = replace(REPORT, phases=(PhaseCost("refitting", 12.34, 3 * 2**29),))
    assert "refitting 12.3 s 1.50 GiB" in Read(html(report, folder="runs/x")).text
    assert "What each phase took" not in html(REPORT, folder="runs/x")
