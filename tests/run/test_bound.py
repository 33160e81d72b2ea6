"""A plan, its weights and its folder belong together: what was changed, swapped or is somebody else's is refused."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from nasprune.common.locks import held
from nasprune.common.seals import sealed
from nasprune.cut.plan import PrunePlan
from nasprune.errors import InputError
from nasprune.run.checkpoint import check_folder, load, save
from nasprune.run.search import search
from nasprune.run.trace import trace
from tests.toys import Outcome, tiny_net, tiny_outcome, tiny_report

FILES = ("plan.json", "model.safetensors", "report.json", "report.md")


@pytest.fixture(scope="module")
def outcome():
    model = tiny_net(seed=3)
    return tiny_outcome(trace(model, torch.zeros(1, 1, 8, 8)), model)


@pytest.fixture(scope="module")
def saved(outcome, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "run"
    save(outcome, folder)
    return folder


@pytest.fixture
def run(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "run")


def rewritten(folder, change, *, forge=True):
    """Changes the plan in a folder, and gives it a right digest again."""
    record = json.loads((folder / "plan.json").read_text())
    digest = record.pop("digest")
    change(record)
    (folder / "plan.json").write_text(json.dumps(sealed(record) if forge else {**record, "digest": digest}))


def test_weights_of_another_save_are_refused(run, outcome, tmp_path):
    tuned = Outcome(load(run, tiny_net()), outcome.plan, outcome.report)
    with torch.no_grad():
        tuned.model.linear.bias.add_(1)
    save(tuned, tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", run)
    with pytest.raises(InputError, match=r"are damaged or from another save: they are not the file that .*plan\.json'"):
        load(run, tiny_net())


def test_a_plan_that_was_changed_is_refused(run):
    rewritten(run, lambda record: record["drop"].clear(), forge=False)
    with pytest.raises(InputError, match=r"plan\.json' is damaged, .*: it was changed after it was written"):
        load(run, tiny_net())


def test_a_plan_of_the_format_before_is_refused_with_what_to_do(run):
    rewritten(run, lambda record: record.update(format=1), forge=False)
    with pytest.raises(InputError, match=r"plans before format 2 lack the digest .* search again"):
        load(run, tiny_net())


def test_a_plan_of_a_format_to_come_is_said_to_be_newer(run):
    rewritten(run, lambda record: record.update(format=3), forge=False)
    with pytest.raises(InputError, match=r"its format is 3; it was written by a newer nasprune"):
        load(run, tiny_net())


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda r: r.update(keep={"conv1": [0.0, 1.0]}), r"`keep\.conv1\[0\]`: expected a whole number"),
        (lambda r: r.update(keep={"conv1": [False, True]}), r"`keep\.conv1\[0\]`: .* got False"),
        (lambda r: r.update(keep={"conv1": [1, 0]}), r"`keep\.conv1`: expected distinct units"),
        (lambda r: r.update(keep={"conv1": []}), r"`keep\.conv1`"),
        (lambda r: r.update(drop=[5]), r"`drop\[0\]`"),
        (lambda r: r.update(drop=["b", "a"]), "`drop`: expected distinct names in order"),
        (lambda r: r.update(scope=5), "`scope`"),
        (lambda r: r.update(signature=[]), "`signature`"),
        (lambda r: r.update(signature={"w": [-1]}), r"`signature\.w\[0\]`"),
        (lambda r: r["inputs"][0].update(dtype="save"), r"`inputs\[0\]\.dtype`: expected one of float16"),
        (lambda r: r["inputs"][0].update(dtype=[1]), r"`inputs\[0\]\.dtype`"),
        (lambda r: r["inputs"][0].update(shape=[10**6, 10**6]), r"`inputs\[0\]\.shape"),
        (lambda r: r["inputs"][0].update(shape=["a"]), r"`inputs\[0\]\.shape\[0\]`"),
        (lambda r: r.update(inputs=[{"value": {}}]), r"`inputs\[0\]\.value`"),
        (lambda r: r.update(inputs=[{"os": "x"}]), r"`inputs\[0\]\.os`"),
        (lambda r: r.update(evil=1), "`evil` is not known"),
    ],
)
def test_a_plan_with_a_wrong_field_is_refused_by_its_name(run, change, field):
    rewritten(run, change)
    with pytest.raises(InputError, match=rf"plan\.json' is damaged, it is not a nasprune plan: {field}"):
        load(run, tiny_net())


def test_arguments_nested_too_deeply(outcome):
    record = json.loads(outcome.plan.to_json())
    record.pop("digest")
    for _ in range(50):
        record["inputs"] = [{"list": record["inputs"]}]
    with pytest.raises(InputError, match="nested at most 16 deep"):
        PrunePlan.from_json(json.dumps(sealed(record)))


@pytest.mark.parametrize("name", FILES)
def test_files_that_no_search_wrote_are_not_replaced(outcome, tmp_path, name):
    (tmp_path / name).write_bytes(b"weeks of work")
    with pytest.raises(InputError, match=r"that no search is known to have written|is not a search report"):
        save(outcome, tmp_path)
    assert (tmp_path / name).read_bytes() == b"weeks of work"
    assert os.listdir(tmp_path) == [name]


def test_a_folder_in_the_place_of_a_file_is_found_before_the_search(tmp_path):
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(InputError, match="is a folder, where a file is to be written"):
        check_folder(tmp_path, {})


def test_a_run_that_another_thread_writes_is_refused(outcome, tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    with held(tmp_path), ThreadPoolExecutor(1) as pool:
        with pytest.raises(InputError, match="already; wait for it"):
            pool.submit(save, outcome, tmp_path).result()
        with pytest.raises(InputError, match="already; wait for it"):
            pool.submit(search, tiny_net(), torch.zeros(1, 1, 8, 8), "60%", out=tmp_path).result()
    save(outcome, tmp_path)


def test_a_search_that_is_asked_to_stop_gives_its_best_and_goes_on_later(tmp_path):
    inputs, asked = torch.zeros(1, 1, 8, 8), iter([False, False, False, True])
    whole = search(tiny_net(), inputs, "60%", controller="random", trials=8)
    part = search(
        *(tiny_net(), inputs, "60%"), controller="random", trials=8, out=tmp_path, should_stop=lambda: next(asked)
    )
    assert len(part.trials) == 3
    assert part.report.proof.ok
    rest = search(tiny_net(), inputs, "60%", controller="random", trials=8, out=tmp_path)
    assert rest.plan == whole.plan
    assert [trial.decision for trial in rest.trials] == [trial.decision for trial in whole.trials]


def test_reports_name_the_field():
    record = json.loads(tiny_report().to_json())
    record["proof"]["flops"] = 1.5
    with pytest.raises(InputError, match=r"not a search report: `proof\.flops`: expected a whole number"):
        type(tiny_report()).from_json(json.dumps(record))
