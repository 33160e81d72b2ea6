"""Folders of supernets that somebody sent: nothing that they name is run, and what was mixed up is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest
import torch

from nasprune.cli import main
from nasprune.common.seals import sealed
from nasprune.errors import InputError
from nasprune.supernet.genotype.naming import supernet_space
from nasprune.supernet.genotype.spaces import Size
from nasprune.supernet.saved import check_free
from nasprune.supernet.storage import load_architecture, load_supernet, save_architecture, save_supernet
from nasprune.supernet.supernet import Supernet

SIZE = Size(4, 1, channels_in=1, resolution=8)
EVIL = "import pathlib\npathlib.Path('OWNED').write_text('ran')\ndef make(): pass\nSpace = make\n"


@pytest.fixture(scope="module")
def whole():
    space = supernet_space("nasbench201")
    torch.manual_seed(0)
    return Supernet.from_model(space.supernet(SIZE).eval(), torch.randn(2, 1, 8, 8), space=space)


@pytest.fixture(scope="module")
def folders(whole, tmp_path_factory):
    place = tmp_path_factory.mktemp("saved")
    ops = whole.choices[0].ops
    for name, kept in (("one", ops[1:4]), ("other", (*ops[1:3], ops[4]))):
        save_supernet(whole.keep({whole.choices[0].name: kept}), place / name, size=SIZE, settings={"seed": "0"})
    save_architecture(whole.discretise(scorer="alpha", size=SIZE), place / "net")
    return place


@pytest.fixture
def got(folders, tmp_path, monkeypatch):
    """A folder that somebody sent, with code beside the data, in the working folder."""
    shutil.copytree(folders / "one", tmp_path / "got")
    shutil.copy(folders / "net" / "architecture.json", tmp_path / "got")
    (tmp_path / "got" / "evil.py").write_text(EVIL)
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "got"


def rewritten(path, **changes):
    """Changes a saved file, and gives it a right digest again."""
    record = json.loads(path.read_text())
    del record["digest"]
    path.write_text(json.dumps(sealed({**record, **changes})))


@pytest.mark.parametrize(
    "spec", ["got/evil.py:Space", "evil:Space", "evil.Space:make", "nasbench201(ops=[evil:Space])"]
)
def test_names_in_files_are_looked_up_and_never_run(got, spec, capsys):
    shutil.copytree(got, got.parent / "net")
    rewritten(got / "supernet.json", space=spec)
    rewritten(got / "architecture.json", space=spec)
    with pytest.raises(InputError):
        load_supernet(got)
    (got.parent / "net" / "supernet.json").unlink()
    with pytest.raises(InputError):
        load_architecture(got)
    for settings in ({}, {"space": spec}):
        rewritten(got / "supernet.json", space="" if settings else spec, settings=settings)
        with pytest.raises(SystemExit) as caught:
            main(["trim", "--supernet", "got", "--budget", "60%"])
        assert caught.value.code == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not os.path.exists("OWNED")
    assert "evil" not in sys.modules


def test_a_space_that_is_not_registered_is_given_by_the_user(got, whole):
    rewritten(got / "supernet.json", space="mine:Space")
    with pytest.raises(InputError, match=r"names the space 'mine:Space', which is not registered, .* `space=`"):
        load_supernet(got)
    for own in ("nasbench201", whole.structure.space):
        assert load_supernet(got, space=own).choices == load_supernet(got, whole).choices


@pytest.mark.parametrize(("from_", "to"), [("supernet.json", "one"), ("model.safetensors", "one")])
def test_files_of_two_saves_are_no_supernet(folders, tmp_path, from_, to):
    mixed = shutil.copytree(folders / to, tmp_path / "mixed")
    shutil.copy(folders / "other" / from_, mixed)
    with pytest.raises(InputError, match=r"model\.safetensors' are damaged or from another save"):
        load_supernet(mixed)


def test_a_changed_file_is_refused(got):
    text = (got / "supernet.json").read_text()
    (got / "supernet.json").write_text(text.replace('"nor_conv_1x1"', '"avg_pool_3x3"', 1))
    with pytest.raises(InputError, match=r"supernet\.json' is damaged, .* it was changed after it was written"):
        load_supernet(got)
    (got / "supernet.json").write_text(text.replace('"format": 2', '"format": 1'))
    with pytest.raises(InputError, match=r"has the format 1, expected 2: files before format 2 lack the digest"):
        load_supernet(got)
    (got / "supernet.json").write_text(text.replace('"format": 2', '"format": 3'))
    with pytest.raises(InputError, match=r"expected 2: it was written by a newer nasprune"):
        load_supernet(got)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input_shape": [2, 1, 10**6, 10**6]}, "`input_shape`: expected 2 to 8 sizes"),
        ({"input_shape": [2.0, 1, 8, 8]}, r"`input_shape\[0\]`"),
        ({"kept": {"a": "none"}}, r"`kept\.a`: expected a list"),
        ({"plain": 3}, "`plain`"),
        ({"whole_numbers": 1}, "`whole_numbers`: expected true or false"),
        ({"size": {"channels": 4.0}}, r"`size\.channels`: expected a whole number"),
        ({"size": {"channels": 10**6}}, r"`size\.channels`: expected a whole number from 1 to 4,096"),
        ({"size": {"layers": 10**7}}, r"`size\.layers`: expected a whole number from 1 to 256"),
        ({"size": {"channels": 4096, "layers": 256, "resolution": 8192}}, "`size`: expected a size whose network"),
        ({"size": {"depth": 1}}, r"`size\.depth` is not known"),
        ({"settings": {"a": 1}}, r"`settings\.a`"),
        ({"evil": 1}, "`evil` is not known"),
    ],
)
def test_sizes_and_types_are_checked_before_anything_is_built(got, monkeypatch, changes, field):
    monkeypatch.setattr("nasprune.supernet.storage._built", None)
    rewritten(got / "supernet.json", **changes)
    with pytest.raises(InputError, match=rf"supernet\.json' is damaged, it is not a saved supernet: {field}"):
        load_supernet(got)


def test_a_network_without_measure_is_counted_before_it_is_there(got):
    rewritten(got / "supernet.json", size={"channels": 4096, "layers": 4, "resolution": 8})
    with pytest.raises(InputError, match=r"has [\d,]+ parameters, at most 1,073,741,824 are built from a file"):
        load_supernet(got)


@pytest.mark.parametrize("name", ["supernet.json", "model.safetensors", "report.md"])
def test_files_of_somebody_else_are_not_replaced(whole, tmp_path, name):
    (tmp_path / name).write_bytes(b"weeks of work")
    with pytest.raises(InputError, match=r"no supernet is known to have been saved with|is damaged"):
        save_supernet(whole, tmp_path, size=SIZE) if name != "report.md" else check_free(tmp_path)
    assert (tmp_path / name).read_bytes() == b"weeks of work"
    assert os.listdir(tmp_path) == [name]
