"""Weights that cannot be meant are refused by name: kinds of numbers, kinds of tensors, values."""

from __future__ import annotations

import os
import warnings
import zipfile

import pytest
import torch
from torch import nn

from nasprune.errors import InputError
from nasprune.models.nets import digits_net
from nasprune.models.weights import load_weights
from nasprune.run.checks import check_weights


def saved(path, **changes):
    """The state of a net in a torch file, with changed tensors."""
    state = digits_net().state_dict()
    torch.save(
        state | {name.replace("__", "."): change(state[name.replace("__", ".")]) for name, change in changes.items()},
        path,
    )


def quantised(value):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def filled(number):
    def fill(value):
        value = value.clone()
        value.view(-1)[0] = number
        return value

    return fill


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.to_sparse(), "is sparse, an ordinary dense tensor is expected"),
        (lambda value: value.to("meta"), "is without values"),
        (quantised, "is quantised"),
        (lambda value: (100 * value).to(torch.int8), "is int8 in the file, float32 in the model"),
        (lambda value: value > 0, "is bool in the file"),
        (lambda value: torch.complex(value, value), "is complex64 in the file"),
        (lambda value: value.to(torch.float8_e4m3fn), "is float8_e4m3fn in the file"),
        (filled(float("nan")), "holds NaN"),
        (filled(float("inf")), "holds infinite values"),
    ],
)
def test_weights_that_cannot_be_meant(tmp_path, change, message):
    saved(tmp_path / "w.pt", conv1__weight=change)
    net = digits_net()
    before = net.conv1.weight.clone()
    with pytest.raises(InputError, match=rf"w\.pt': 'conv1\.weight' {message}"):
        load_weights(net, tmp_path / "w.pt")
    assert torch.equal(net.conv1.weight, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (filled(-1e-3), r"holds negative variances \(the least is -0\.001\)"),
        (filled(float("nan")), "holds NaN"),
        (filled(float("inf")), "holds infinite values"),
    ],
)
def test_variances_in_files_and_in_models(tmp_path, change, message):
    saved(tmp_path / "w.pt", bn1__running_var=change)
    with pytest.raises(InputError, match=rf"'bn1\.running_var' {message}"):
        load_weights(digits_net(), tmp_path / "w.pt")
    net = digits_net()
    net.bn1.running_var = change(net.bn1.running_var)
    with pytest.raises(InputError, match=rf"the model's 'bn1\.running_var' {message}"):
        check_weights(net)


def test_means_that_are_not_finite(tmp_path):
    saved(tmp_path / "w.pt", bn1__running_mean=filled(float("-inf")))
    with pytest.raises(InputError, match=r"'bn1\.running_mean' holds infinite values"):
        load_weights(digits_net(), tmp_path / "w.pt")


def test_a_mask_may_hold_infinities():
    net = nn.Linear(2, 2)
    net.register_buffer("mask", torch.full((2, 2), float("-inf")).triu(1))
    check_weights(net)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_meant_and_counters_may_be_floats(tmp_path, dtype):
    saved(
        tmp_path / "w.pt",
        conv1__weight=lambda value: value.to(dtype),
        bn1__num_batches_tracked=lambda value: value.float(),
    )
    load_weights(digits_net(), tmp_path / "w.pt")
    saved(tmp_path / "w.pt", bn1__num_batches_tracked=lambda value: value + 0.5)
    with pytest.raises(InputError, match="num_batches_tracked' is float32 in the file, int64 in the model"):
        load_weights(digits_net(), tmp_path / "w.pt")


def test_names_that_are_no_words(tmp_path):
    torch.save({1: torch.zeros(2)}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="expected names of tensors, got 1"):
        load_weights(digits_net(), tmp_path / "w.pt")


def test_nothing_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(InputError, match="it is a named pipe; give a safetensors or torch file"):
        load_weights(digits_net(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="it is a folder"):
        load_weights(digits_net(), tmp_path)


def test_a_file_that_would_unpack_to_more_than_it_is(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as old,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(InputError, match=r"would unpack to .* bytes, more than the file has"):
        load_weights(digits_net(), tmp_path / "w.pt")
