"""What is saved comes back bit-identical, on the user's own net; anything else is refused by name."""

from __future__ import annotations

import json
from functools import cache

import pytest
import torch
from torch import nn

import nasprune
from nasprune import Size, Supernet
from nasprune.errors import InputError
from nasprune.supernet.genotype.codecs import from_json, parse
from nasprune.supernet.genotype.naming import spec_of, supernet_space
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.storage import (
    load_architecture,
    load_supernet,
    load_values,
    save_architecture,
    save_supernet,
)
from nasprune.supernet.structure.refresh import refreshed
from nasprune.supernet.train.training import architecture_of
from tests.supernet import foreign
from tests.supernet.find.edges import Net, OneOf, candidates
from tests.supernet.toys import images
from tests.supernet.train.test_training import Toy

SMALL = {"darts": Size(4, 3, channels_in=1, resolution=8), "nasbench201": Size(4, 1, channels_in=1, resolution=8)}


SPACES = {
    "darts": "darts(ops=['none', 'skip_connect', 'dil_conv_3x3'])",
    "nasbench201": "nasbench201",
}

pytestmark = pytest.mark.usefixtures("one_draw")


@cache
def made(name: str) -> Supernet:
    """Not to be changed."""
    space = supernet_space(SPACES[name])
    torch.manual_seed(0)
    net = space.supernet(SMALL[name])
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 2:
                parameter.normal_()
    return Supernet.from_model(net, torch.randn(4, 1, 8, 8), space=space)


def toy(*, plain: bool, seed: int = 0) -> Toy:
    torch.manual_seed(seed)
    net = Toy(plain=plain)
    with torch.no_grad():
        net.alphas.normal_()
    return net


def of_toy(net: nn.Module) -> Supernet:
    return Supernet.from_model(
        net, torch.randn(4, 1, 8, 8), weights=lambda place: place.net.alphas[0], op_names=("conv", "pool", "skip")
    )


OPTIONS = {"weights": lambda place: place.net.alphas[0], "op_names": ("conv", "pool", "skip")}


def same(one: Supernet, other: Supernet) -> None:
    x = torch.randn(3, *one.structure.inputs[0].shape[1:])
    first, second = (each.net.eval()(x) for each in (one, other))
    first, second = (each[0] if isinstance(each, tuple) else each for each in (first, second))
    assert torch.equal(first, second)
    assert one.choices == other.choices
    assert one.counts == other.counts
    for name, known in one.structure.logits.items():
        assert torch.equal(known.values, other.structure.logits[name].values)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_a_trimmed_supernet_of_a_space_comes_back_without_a_net(tmp_path, name):
    trimmed = made(name).trim("60%", "random", keep_max=2)
    save_supernet(trimmed.supernet, tmp_path / "run", size=SMALL[name], report=trimmed.report, settings={"seed": "0"})
    assert {path.name for path in (tmp_path / "run").iterdir()} == {
        "supernet.json",
        "model.safetensors",
        "report.json",
        "report.md",
    }
    again = load_supernet(tmp_path / "run")
    same(trimmed.supernet, again)
    assert json.loads((tmp_path / "run" / "supernet.json").read_text())["space"] == SPACES[name]


@pytest.mark.parametrize("plain", [False, True])
def test_the_users_own_net_is_replayed_and_left_alone(tmp_path, plain):
    small = of_toy(toy(plain=plain)).keep({"ops": ["conv", "skip"]})
    save_supernet(small, tmp_path)
    fresh = toy(plain=plain, seed=5)
    before = fresh.alphas.detach().clone()
    again = load_supernet(tmp_path, fresh, **OPTIONS)
    same(small, again)
    assert torch.equal(again.net.alphas, small.net.alphas)
    assert torch.equal(fresh.alphas, before)
    assert len(architecture_of(again.structure, again.net)) == 1
    if plain:
        assert again.net.all[0] is again.net.alphas
        assert again.net.alphas.requires_grad


@pytest.mark.parametrize("told", [False, True])
def test_it_comes_back_whether_or_not_it_is_said_again_where_the_architecture_weights_are(tmp_path, told):
    """Told, the weights of what went are switched off; else what stays is scaled."""
    net, example = toy(plain=False), torch.randn(2, 1, 8, 8)
    weights = lambda place: place.net.alphas[0]  # noqa: E731
    small = Supernet.from_model(net, example, weights=weights if told else None).keep({"ops": [0, 2]})
    save_supernet(small, tmp_path / "super")
    again = load_supernet(tmp_path / "super", toy(plain=False, seed=1), weights=None if told else weights)
    assert torch.equal(again.net(example)[0], small.net.eval()(example)[0])
    one = Supernet.from_model(net, example, weights=weights if told else None).discretise("90%")
    save_architecture(one, tmp_path / "net")
    found = load_architecture(tmp_path / "net", toy(plain=False, seed=1), example, weights=None if told else weights)
    assert torch.equal(found(example)[0], one.model.eval()(example)[0])


def test_choices_that_went_altogether_go_again(tmp_path):
    whole = made("darts")
    small = whole.keep({"normal/13": [], "normal/0": ["skip_connect", "dil_conv_3x3"]})
    assert "normal/13" not in [choice.name for choice in small.choices]
    save_supernet(small, tmp_path, size=SMALL["darts"])
    same(small, load_supernet(tmp_path))


def test_another_net_is_refused_by_its_first_difference(tmp_path):
    small = of_toy(toy(plain=True)).keep({"ops": ["conv", "skip"]})
    save_supernet(small, tmp_path)
    with pytest.raises(InputError, match=r"has a choice 'ops', the net has \['other'\]"):
        load_supernet(tmp_path, toy(plain=True), group=lambda place: "other")
    with pytest.raises(InputError, match="keeps 'conv', the net has only"):
        load_supernet(tmp_path, toy(plain=True))
    with pytest.raises(InputError, match=r"'plain tensor:alphas' is not in the net"):
        load_supernet(tmp_path, toy(plain=False), **OPTIONS)
    wide = toy(plain=True)
    wide.head = nn.Linear(128, 12)
    with pytest.raises(InputError, match=r"'head\.weight' has shape \[10, 128\] in the file, \[12, 128\]"):
        load_supernet(tmp_path, wide, **OPTIONS)
    with pytest.raises(InputError, match="give the untouched net as `net=`"):
        load_supernet(tmp_path)


def test_damaged_and_missing_files_are_said(tmp_path):
    with pytest.raises(InputError, match=r"supernet\.json': No such file"):
        load_supernet(tmp_path)
    for text, message in (("{", "is damaged"), ('{"format": 7}', "has the format 7"), ('{"format": 2}', "is damaged")):
        (tmp_path / "supernet.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_supernet(tmp_path)


def test_nothing_half_written_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match="No space left"):
        save_supernet(of_toy(toy(plain=False)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_values_from_a_file(tmp_path):
    torch.save(toy(plain=True, seed=3).state_dict(), tmp_path / "w.pt")
    start = of_toy(toy(plain=True))
    filled = load_values(start, tmp_path / "w.pt")
    assert torch.equal(filled.net.head.weight, toy(plain=True, seed=3).head.weight)
    assert torch.equal(filled.net.alphas, start.net.alphas)


@pytest.mark.parametrize("name", ["darts", "nasbench201"])
def test_an_architecture_comes_back_and_its_genotype_is_text(tmp_path, name):
    found = made(name).discretise(scorer="alpha", size=SMALL[name])
    save_architecture(found, tmp_path, settings={"rule": "darts", "scorer": "alpha", "seed": "0"})
    x = torch.randn(2, 1, 8, 8)
    again = load_architecture(tmp_path)
    assert torch.equal(again(x), found.model.eval()(x))
    assert parse((tmp_path / "genotype.txt").read_text()) == found.genotype
    record = json.loads((tmp_path / "architecture.json").read_text())
    assert from_json(json.dumps(record["genotype"])) == found.genotype
    assert record["counts"]["params"] == sum(parameter.numel() for parameter in again.parameters())
    assert record["settings"]["rule"] == "darts"


def test_an_architecture_without_a_space_needs_the_supernet(tmp_path):
    found = of_toy(toy(plain=True)).discretise(rule="darts")
    save_architecture(found, tmp_path)
    assert not (tmp_path / "genotype.txt").exists()
    with pytest.raises(InputError, match="give the supernet and example_inputs"):
        load_architecture(tmp_path)
    example = torch.randn(4, 1, 8, 8)
    again = load_architecture(tmp_path, toy(plain=True, seed=4), example, **OPTIONS)
    assert torch.equal(again(example)[0], found.model.eval()(example)[0])
    once_more = load_architecture(tmp_path, of_toy(toy(plain=True, seed=5)))
    assert torch.equal(once_more(example)[0], found.model.eval()(example)[0])


def test_a_users_own_network_and_its_channels_come_back_with_one_call(tmp_path):
    supernet = of_toy(toy(plain=True))
    found = supernet.discretise(rule="darts")
    save_architecture(found, tmp_path)
    save_supernet(supernet, tmp_path / "supernet")
    example = torch.randn(4, 1, 8, 8)
    whole = found.model.eval()(example)[0]
    assert torch.equal(nasprune.load(tmp_path, of_toy(toy(plain=True, seed=5)))(example)[0], whole)
    result = nasprune.search(found.model, example[:1], "70%", controller="uniform")
    nasprune.save(result, tmp_path / "channels")
    again = nasprune.load(tmp_path, of_toy(toy(plain=True, seed=5)))
    assert torch.equal(again(example)[0], result.model(example)[0])
    assert not torch.equal(again(example)[0], whole)


def test_one_call_says_what_is_missing(tmp_path):
    save_supernet(of_toy(toy(plain=True)), tmp_path)
    assert isinstance(nasprune.load(tmp_path, of_toy(toy(plain=True, seed=5))), nn.Module)
    with pytest.raises(InputError, match="give the untouched net"):
        nasprune.load(tmp_path)
    with pytest.raises(InputError, match=r"neither plan\.json, architecture\.json nor supernet\.json"):
        nasprune.load(tmp_path / "nothing")


def test_the_name_of_a_space_finds_it_again():
    for spec in ("darts", "nasbench201", "darts(ops=['none', 'skip_connect', 'sep_conv_3x3'])"):
        space = supernet_space(spec)
        assert spec_of(space) == spec
        assert type(supernet_space(spec_of(space))) is type(space)


def test_shares_are_measured_again_where_the_net_does_not_tell_its_weights():
    seen = Supernet.from_model(toy(plain=False), torch.randn(4, 1, 8, 8))
    kept = seen.keep({"ops": [0, 2]})
    with torch.no_grad():
        kept.net.alphas.copy_(torch.tensor([[1.0, 5.0, 0.0]]))
    shares = refreshed(kept.structure).shares_in(kept.net, kept.choices[0])
    torch.testing.assert_close(shares, torch.tensor([1.0, 0.0]).softmax(0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("keeps", [(["k3", "pool"], ["k3", "k5", "pool"]), (["pool"], ["k5", "k3"])])
def test_a_net_that_runs_one_candidate_at_a_time_is_cut_twice_and_comes_back(tmp_path, keeps):
    torch.manual_seed(0)
    net = foreign.chain()
    whole = Supernet.from_model(net.eval(), torch.randn(2, 3, 8, 8))
    once = whole.keep({})
    with torch.no_grad():
        for _, value in once.net.named_parameters():
            value.add_(torch.randn_like(value) * 0.1)
    twice = Supernet(refreshed(once.structure)).keep(dict(zip(("block0", "block3"), keeps, strict=True)))
    assert all(choice.name in twice.structure.logits for choice in twice.choices if len(choice.ops) > 1)
    assert twice.counts == count_module(twice.net, (1, 3, 8, 8))
    save_supernet(twice, tmp_path)
    same(twice, load_supernet(tmp_path, foreign.chain()))


def test_what_runs_one_candidate_at_a_time_comes_back_as_it_was_written(tmp_path):
    """Whole, as it is after training; only when candidates go it becomes a mixture."""
    nets = [Net(OneOf(candidates()), OneOf([nn.Identity(), nn.MaxPool2d(3, 1, 1)])).eval() for _ in range(2)]
    whole = Supernet.from_model(nets[0], images(), choices=["edges.*"])
    save_supernet(whole, tmp_path / "super")
    again = load_supernet(tmp_path / "super", nets[1], choices=["edges.*"])
    assert isinstance(again.net.edges[0], OneOf)
    assert again.net is not nets[1]
    assert torch.equal(again.net(images()), nets[0](images()))
    torch.save(nets[0].state_dict(), tmp_path / "values.pt")
    filled = load_values(Supernet.from_model(nets[1], images(), choices=["edges.*"]), tmp_path / "values.pt")
    assert torch.equal(filled.net(images()), nets[0](images()))
    save_supernet(whole.keep({"edges.0": [0, 1]}), tmp_path / "small")
    assert len(load_supernet(tmp_path / "small", nets[1], choices=["edges.*"]).choices[0].ops) == 2


def test_shares_are_those_of_the_weights_that_come_with_the_mixture():
    torch.manual_seed(0)
    whole = Supernet.from_model(foreign.chain().eval(), torch.randn(2, 3, 8, 8))
    once = whole.keep({})
    with torch.no_grad():
        once.net.get_submodule("1").alpha.copy_(torch.tensor([1.0, 2.0, 3.0]))
    twice = once.keep({"block0": ["k3", "pool"]})
    expected = torch.tensor([1.0, 3.0]).softmax(0)
    torch.testing.assert_close(twice.structure.shares_in(twice.net, twice.choices[0]), expected)
    assert len(architecture_of(twice.structure, twice.net)) == 4
    assert refreshed(twice.structure).mixed == twice.structure.mixed


def test_mixtures_in_a_row_go_where_nothing_comes_in(tmp_path):
    whole = Supernet.from_model(foreign.chain().eval(), torch.randn(2, 3, 8, 8)).keep({})
    with pytest.raises(InputError, match="nothing connects"):
        whole.keep({"block1": []})


def test_progressive_trimming_of_one_path_nets_comes_back(tmp_path):
    torch.manual_seed(0)
    whole = Supernet.from_model(foreign.chain().eval(), torch.randn(2, 3, 8, 8))
    trimmed = whole.trim("90%", schedule="progressive(stages=[3, 2], epochs=0)")
    save_supernet(trimmed.supernet, tmp_path)
    same(trimmed.supernet, load_supernet(tmp_path, foreign.chain()))
