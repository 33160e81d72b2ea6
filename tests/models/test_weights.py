"""Weight files of every accepted kind, and one line for every other."""

from __future__ import annotations

import pickle

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from nasprune.errors import InputError
from nasprune.models.nets import digits_net
from nasprune.models.weights import load_weights


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 3)
        self.b = nn.Linear(3, 3)
        self.b.weight = self.a.weight


def _same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {"model": {f"_orig_mod.{name}": tensor for name, tensor in state.items()}},
    ],
)
def test_torch_files(tmp_path, wrap):
    trained, model = digits_net(), digits_net()
    torch.save(wrap(trained.state_dict()), tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert _same(trained, model)


def test_safetensors_without_batch_counters(tmp_path):
    trained, model = digits_net(), digits_net()
    state = {name: value for name, value in trained.state_dict().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert _same(trained, model)


def test_a_tied_name_may_be_absent(tmp_path):
    trained, model = Tied(), Tied()
    state = {name: value for name, value in trained.state_dict().items() if name != "b.weight"}
    save_file(state, tmp_path / "w.safetensors")
    load_weights(model, tmp_path / "w.safetensors")
    assert _same(trained, model)


def test_the_first_mismatch_is_named_with_both_shapes(tmp_path):
    save_file({"0.weight": torch.zeros(3, 4), "0.bias": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"'0.weight' has shape \[3, 4\] in the file, \[3, 5\] in the model"):
        load_weights(nn.Sequential(nn.Linear(5, 3)), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"no '1.weight' of shape \[2, 3\], which the model has"):
        load_weights(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match=r"'0.bias' of shape \[3\] is not in the model"):
        load_weights(nn.Sequential(nn.Linear(4, 3, bias=False)), tmp_path / "w.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "are damaged|are not opened"),
        (b"hello, these are no weights at all", "are damaged|are not opened"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken json....", "are damaged"),
        (pickle.dumps(print), "are not opened"),
    ],
)
def test_other_files_get_one_line(tmp_path, content, message):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_weights(digits_net(), tmp_path / "w.pt")
    assert "\n" not in str(caught.value)


def test_a_pickled_module_is_not_opened(tmp_path):
    torch.save(digits_net(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="hold more than tensors"):
        load_weights(digits_net(), tmp_path / "w.pt")


def test_a_missing_file():
    with pytest.raises(InputError, match=r"cannot read weights '/nowhere.pt': No such file"):
        load_weights(digits_net(), "/nowhere.pt")


def test_weights_load_into_models_that_insist_on_a_version_record(tmp_path):
    model, other = torchvision.models.mnasnet0_5(), torchvision.models.mnasnet0_5()
    save_file(dict(model.state_dict()), tmp_path / "weights.safetensors")
    load_weights(other, tmp_path / "weights.safetensors")
    assert torch.equal(other.layers[0].weight, model.layers[0].weight)
