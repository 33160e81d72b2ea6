"""Zeros inside of weights from the shell."""

from __future__ import annotations

import json

import pytest

import nasprune
from nasprune.cut.weight_masks import count_nonzeros
from tests.toys import tiny_net

TOY = ["--model", "tests.toys:tiny_net", "--data", "digits", "--allow-chance", "--quiet"]

pytestmark = pytest.mark.usefixtures("few_digits")


def test_searched_shown_tuned_and_loaded(command, tmp_path):
    code, out, err = command("search", *TOY, "--budget", "30%NNZ", "--out", "run")
    assert code == 0, err
    assert "not zero (NNZ)" in out
    assert "masks.safetensors: which weights are zero" in out
    assert 'sparsifier = "obs"' in (tmp_path / "run" / "run.toml").read_text()
    code, out, _ = command("show", "run", "--json")
    sparsity = json.loads(out)["report"]["sparsity"]
    small = nasprune.load("run", model=tiny_net())
    assert sparsity["cut"] == count_nonzeros(small) <= 0.3 * sparsity["dense"]
    code, _, err = command(
        *("finetune", "run", "--model", "tests.toys:tiny_net", "--data", "digits", "--epochs", 1, "--device", "cpu")
    )
    assert code == 0, err
    tuned = nasprune.load("run/finetuned", model=tiny_net())
    assert count_nonzeros(tuned) <= 0.3 * sparsity["dense"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--budget", "20%NNZ", "--space", "widths"], "write --space widths+weights"),
        (["--budget", "60%", "--sparsifier", "obd"], "the budget asks for no zeros"),
        (["--budget", "20%NNZ", "--space", "weights(include=5)"], "`include` must be a name or a list of names"),
        (["--budget", "20%NNZ", "--sparsifier", "nettrim(epsilon=much)"], "`epsilon` must be a number, got the str"),
        (["--budget", "20%NNZ", "--sparsifier", "obz"], "did you mean"),
    ],
)
def test_what_does_not_fit_is_one_line(command, tmp_path, options, words):
    code, out, err = command("search", *TOY, *options)
    assert (code, out) == (2, "")
    assert words in err.strip().splitlines()[-1]
