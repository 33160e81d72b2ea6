"""Models from every source, their input sizes, and what a wrong name gets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nasprune.errors import InputError, UnknownNameError
from nasprune.models.loading import load_model, parse_input_size


@pytest.mark.parametrize(
    ("spec", "size", "name", "shapes"),
    [
        ("torchvision:squeezenet1_1", None, "squeezenet1_1", [(3, 224, 224)]),
        ("torchvision:r3d_18", None, "r3d_18", [(3, 16, 112, 112)]),
        ("torchvision:raft_small", "128", "raft_small", [(3, 128, 128), (3, 128, 128)]),
        ("timm:resnet10t", "96", "resnet10t", [(3, 96, 96)]),
        ("nasprune.models:digits_net", None, "digits_net", [(1, 8, 8)]),
    ],
)
def test_sources(spec, size, name, shapes):
    loaded = load_model(spec, input_size=size)
    assert (loaded.name, loaded.weights) == (name, None)
    assert [tuple(tensor.shape) for tensor in loaded.example_inputs()] == [(1, *shape) for shape in shapes]
    assert not loaded.model.training


def test_the_seed_fixes_the_weights_and_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.get_rng_state()
    first, second, other = (load_model("nasprune.models:digits_net", seed=seed).model for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.equal(first.conv1.weight, second.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)


def test_weights_come_from_a_file(tmp_path):
    trained = load_model("nasprune.models:digits_net", seed=1).model
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    loaded = load_model("nasprune.models:digits_net", weights=str(tmp_path / "w.pt"), seed=2)
    assert torch.equal(loaded.model.conv1.weight, trained.conv1.weight)
    assert loaded.weights == str(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("text", "known", "shape"),
    [
        ("96", (3, 224, 224), (3, 96, 96)),
        ("96x64", (1, 8, 8), (1, 96, 64)),
        ("96", None, (3, 96, 96)),
        ("64", (3, 16, 112, 112), (3, 16, 64, 64)),
        ("4x10x10", (3, 8, 8), (4, 10, 10)),
    ],
)
def test_input_size(text, known, shape):
    assert parse_input_size(text, known) == shape


@pytest.mark.parametrize("text", ["big", "0", "3x", "3x-1", ""])
def test_input_size_that_does_not_parse(text):
    with pytest.raises(InputError, match="must look like 224, 160x192 or 3x224x224"):
        parse_input_size(text, None)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        ("torchvision:resnet05", UnknownNameError, "did you mean resnet50"),
        ("timm:resnet81", UnknownNameError, "did you mean resnet18"),
        ("resnet50", InputError, "did you mean torchvision:resnet50"),
        ("torch.nn:Identity", InputError, "the input size of 'torch.nn:Identity' is not known"),
        ("builtins:dict", InputError, "`builtins:dict` must be a torch.nn.Module, got a dict"),
    ],
)
def test_wrong_names(spec, error, message):
    with pytest.raises(error, match=message):
        load_model(spec)


def test_the_folder_of_a_search_is_told_from_a_name(tmp_path):
    (tmp_path / "plan.json").touch()
    with pytest.raises(InputError, match="is the folder of a search, which holds a plan and no code: write a factory"):
        load_model(str(tmp_path))


def test_default_weights_that_cannot_be_fetched(monkeypatch):
    from urllib.error import URLError

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("os.path.exists", lambda path: False)
    with pytest.raises(InputError, match=r"default weights of torchvision:alexnet cannot be fetched .*no route"):
        load_model("torchvision:alexnet", weights="default")


def test_a_factory_has_no_default_weights():
    with pytest.raises(InputError, match="has no default weights"):
        load_model("nasprune.models:digits_net", weights="default")


def test_a_model_may_say_its_input_shape(tmp_path):
    source = "from torch import nn\nclass Own(nn.Flatten):\n    input_shape = (2, 5)\n"
    (tmp_path / "own.py").write_text(source)
    loaded = load_model(f"{tmp_path / 'own.py'}:Own")
    assert isinstance(loaded.model, nn.Flatten)
    assert loaded.shape == (2, 5)
