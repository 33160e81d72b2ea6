"""`nasprune supernet train` and `nasprune trim` from the shell: what they print and write, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import nasprune
from nasprune.cli.nets import LARGE, fitted
from nasprune.cli.supernet import plain_name, typed
from nasprune.common.factories import call_factory
from nasprune.data import load_data
from nasprune.run.reporting import loading_lines
from nasprune.supernet import checked
from nasprune.supernet.genotype.naming import supernet_space
from nasprune.supernet.price.counting import count_module
from nasprune.supernet.storage import load_architecture, load_supernet
from nasprune.supernet.supernet import RE_ESTIMATED_NETWORK
from nasprune.supernet.train.agreement import Agreement
from tests.cli.conftest import refused
from tests.forks import forked
from tests.supernet.clocks import work

TINY = ["--supernet-channels", 4, "--supernet-layers", 1]
FEW = "nasbench201(ops=['none', 'skip_connect', 'nor_conv_3x3'])"
NB201 = ["--space", FEW, *TINY]
QUICK = ["--scorer", "alpha"]
OWN = """
import torch
from tests.supernet.train.test_training import Toy


def toy():
    net = Toy()
    net.input_shape = (1, 8, 8)
    return net


def told():
    import nasprune

    return nasprune.Supernet.from_model(
        Toy(), torch.randn(2, 1, 8, 8), weights=lambda place: place.net.alphas[0], op_names=("conv", "pool", "skip")
    )


def coloured():
    net = toy()
    net.stem[0] = torch.nn.Conv2d(3, 8, 3, 2, 1)
    net.input_shape = (3, 8, 8)
    return net


def partly():
    from tests.supernet.find.edges import Edge, Net, OneOf, candidates

    net = Net(Edge(candidates()), OneOf(candidates()))
    net.input_shape = (1, 8, 8)
    return net


def number():
    return 3


def broken():
    raise RuntimeError("no such thing")


def shapeless():
    net = Toy()
    net.input_shape = 8
    return net


class Unfinished(__import__("nasprune").SupernetSpace):
    pass
"""


pytestmark = pytest.mark.usefixtures("one_draw", "few_digits", "few_paths")


@pytest.fixture
def place(tmp_path):
    """With the file `own.py`."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path


def test_train_then_trim_then_pick_a_network(command, tmp_path):
    train = ["supernet", "train", "--space", "nasbench201", "--data", "digits", "--channels", 4, "--layers", 1]
    code, out, err = command(*train, "--epochs", 2, "--warmup-epochs", 1, "--out", "super")
    assert code == 0, err
    assert "epoch 1/2" in err
    assert "epoch 2/2" in err
    assert "trim --supernet super --budget" in out
    assert {path.name for path in (tmp_path / "super").iterdir()} == {"supernet.json", "model.safetensors", "run.toml"}

    code, out, err = command("trim", "--supernet", "super", "--budget", "60%", "--data", "digits", "--out", "small")
    assert code == 0, err
    assert "untrained" not in out + err
    for text in ("supernet", "trimmed", "cell/0", "paths", "flops_order", "random", "files    small/"):
        assert text in out
    whole, small = load_supernet("super"), load_supernet("small")
    assert count_module(small.net, (1, 1, 8, 8)).fvcore <= 0.6 * whole.counts.fvcore
    assert all(1 <= len(choice.ops) <= 3 for choice in small.choices)
    report = json.loads((tmp_path / "small" / "report.json").read_text())
    assert report["kept"] == {choice.name: list(choice.ops) for choice in small.choices}
    assert (tmp_path / "small" / "report.md").is_file()

    pick = ["--budget", "60KMACs", "--discretise", "--rule", "darts", "--seed", 1, "--out", "net"]
    code, out, err = command("trim", "--supernet", "small", *pick, "--json", "--quiet")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["genotype"].startswith("|")
    net = load_architecture("net")
    assert told["costs"]["network"]["macs"] == count_module(net, (1, 1, 8, 8)).macs
    assert count_module(net, (1, 1, 8, 8)).macs <= 60_000
    assert net(torch.randn(2, 1, 8, 8)).shape == (2, 10)


def test_an_untrained_supernet_is_said_to_be_one_and_may_be_trained_first(command):
    code, out, err = command("trim", *NB201, "--budget", "50%", "--out", "run")
    assert code == 0, err
    assert "The supernet is untrained" in err
    assert "flops_order" in out
    code, out, err = command(
        "trim", *NB201, *QUICK, "--budget", "50%", "--data", "digits", "--epochs", 1, "--out", "other"
    )
    assert code == 0, err
    assert "epoch 1/1" in err
    assert "untrained" not in out + err


def test_operations_and_channels_share_one_budget(command):
    common = [*NB201, "--scorer", "flops_order", "--out", "run"]
    code, out, err = command("trim", *common, "--budget", "900KFLOPs", "--discretise", "--prune-channels", "40%")
    assert code == 0, err
    assert "fewer channels" in out
    net = load_architecture("run")
    small = nasprune.load("run/channels", model=net)
    shape = (1, 3, 32, 32)
    before, after = (count_module(one, shape).fvcore for one in (net, small))
    assert after <= 900_000 < before <= 900_000 / 0.6
    assert 'net = nasprune.load("run")' in out
    x = torch.randn(2, *shape[1:])
    assert torch.equal(nasprune.load("run")(x), small(x))


def test_a_trim_and_a_search_of_what_it_left_are_one_folder_that_one_call_loads(command, tmp_path):
    common = [*NB201, "--scorer", "flops_order", "--out", "run"]
    code, _, err = command("trim", *common, "--budget", "900KFLOPs", "--discretise")
    assert code == 0, err
    code, out, err = command("search", "--model", "run", "--budget", "70%", "--controller", "uniform")
    assert code == 0, err
    assert 'small = nasprune.load("run")' in out
    assert loading_lines("run", "tuned")[-1].endswith('("tuned", model=nasprune.load_architecture("run"))')
    code, out, err = command("export", "run/channels", "--model", "run", "--format", "pt2")
    assert code == 0, err
    assert (tmp_path / "run" / "channels" / "plan.json").is_file()
    x = torch.randn(2, 3, 32, 32)
    small = nasprune.load("run/channels", model=load_architecture("run"))(x)
    elsewhere = forked(lambda: torch.save(nasprune.load("run")(x), "given.pt"), tmp_path)
    assert elsewhere.ended() == ""
    assert torch.equal(torch.load("given.pt"), small)
    assert not torch.equal(small, load_architecture("run")(x))
    again = command("search", "--model", "run", "--budget", "70%", "--weights", "default", "--out", "other")
    refused(again, "leave out --weights")


@pytest.mark.parametrize(("budget", "most"), [(("60%", "--count", "latency"), 3.9), (("1.2ms",), 1.2)])
def test_a_budget_may_be_one_of_time(command, steady, budget, most):
    code, out, err = command("trim", *NB201, "--scorer", "flops_order", "--out", "run", "--budget", *budget)
    assert code == 0, err
    assert "ms: what was built takes" in out.replace("\n", " ")
    assert work(load_supernet("run").net, torch.zeros(2, 3, 32, 32)) <= most
    assert "ms --discretise" in out
    code, out, err = command(
        "trim", *NB201, "--scorer", "flops_order", "--out", "net", "--budget", "1.5ms", "--discretise"
    )
    assert code == 0, err
    assert 1 < work(load_architecture("net"), torch.zeros(2, 3, 32, 32)) <= 1.5


def test_the_network_is_trained_on_with_tune(command, tmp_path):
    picked = ["trim", *NB201, *QUICK, "--budget", "70%", "--discretise", "--data", "digits"]
    for out, more in (("plain", []), ("tuned", ["--tune", 1])):
        code, _, err = command(*picked, *more, "--out", out)
        assert code == 0, err
        assert ("epoch 1/1" in err) == bool(more)
    plain, tuned = load_architecture("plain"), load_architecture("tuned")
    assert (tmp_path / "plain" / "genotype.txt").read_text() == (tmp_path / "tuned" / "genotype.txt").read_text()
    first = next(name for name, _ in plain.named_parameters())
    assert not torch.equal(plain.state_dict()[first], tuned.state_dict()[first])


def test_training_what_is_left_says_how_far_it_came(command):
    common = ["trim", *NB201, *QUICK, "--budget", "70%", "--data", "digits", "--tune", 1]
    code, out, err = command(*common, "--out", "super")
    assert code == 0, err
    assert "supernet: epoch 1 of 1, loss" in err
    assert "After 1 more epochs the trimmed supernet is right on" in out
    code, out, err = command(*common, "--discretise", "--out", "net")
    assert code == 0, err
    assert "After 1 more epochs the network is right on" in out
    assert "train it before judging it" not in out
    assert RE_ESTIMATED_NETWORK not in out


def test_a_supernet_trained_on_single_paths_is_taken_by_a_check_as_it_is(command, tmp_path, monkeypatch):
    size = ["--channels", 4, "--layers", 1]
    train = ["supernet", "train", "--space", FEW, *size, "--data", "digits", "--epochs", 1, "--method", "paths"]
    code, out, err = command(*train, "--out", "super")
    assert code == 0, err
    assert json.loads((tmp_path / "super" / "supernet.json").read_text())["settings"]["method"] == "paths"
    assert "validation accuracy of random paths" in out
    monkeypatch.setattr(checked, "STEPS", 1)
    monkeypatch.setattr(checked, "_of_single_paths", None)
    monkeypatch.setattr(Agreement, "agrees", False)
    code, out, err = command("trim", "--supernet", "super", "--budget", "60%", "--data", "digits", "--check", 5)
    assert code == 0, err
    assert "check: 1 of 5 networks trained, " in err
    assert "check: 5 of 5 networks trained, 0:00 left" in err
    assert "this very supernet, which was trained on such (path_loss)" in " ".join(out.split())


def test_a_budget_that_nothing_keeps_is_refused_before_any_training(command, monkeypatch):
    monkeypatch.setattr("nasprune.cli.trim.trained", None)
    for more in ([], ["--discretise"], ["--discretise", "--channels", 2]):
        refused(command("trim", *NB201, "--budget", "1KMACs", "--epochs", 1, "--data", "digits", *more), "raise")


def test_the_network_may_have_another_size(command):
    final = ["--discretise", "--network", "cifar10", "--channels", 8, "--layers", 2]
    code, out, err = command("trim", *NB201, *QUICK, "--budget", "20MMACs", *final, "--out", "run")
    assert code == 0, err
    assert "another size than the supernet" in out
    assert 1_000_000 < count_module(load_architecture("run"), (1, 3, 32, 32)).macs <= 20_000_000


def test_the_users_own_supernet(command, tmp_path):
    own = ["--space", "own.py:toy"]
    code, out, err = command("supernet", "train", *own, "--data", "digits", "--epochs", 1, "--out", "super")
    assert code == 0, err
    assert "all of it is trained as weights" in err
    code, out, err = command(
        "trim", *own, "--supernet", "super", "--budget", "80%", "--data", "digits", "--out", "small"
    )
    assert code == 0, err
    assert 'load_supernet("small", YOUR_SUPERNET)' in out
    code, out, err = command("trim", *own, "--budget", "90%", "--discretise", "--out", "net")
    assert code == 0, err
    assert 'load_architecture("net", YOUR_SUPERNET, torch.randn(2, ' in out
    assert not (tmp_path / "net" / "genotype.txt").exists()


@pytest.fixture
def pictures(place):
    """Two classes of twelve images of 20 by 20 pixels."""
    for number in range(24):
        folder = place / "pictures" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (20, 20, 3), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number}.png")
    return "imagefolder:pictures"


def test_images_of_a_folder_get_the_size_that_the_supernet_takes(command, pictures):
    own = ["--space", "own.py:coloured", "--data", pictures]
    code, _, err = command("supernet", "train", *own, "--epochs", 1, "--out", "super")
    assert code == 0, err
    assert "images 3×8×8" in err
    code, _, err = command("trim", *own, "--supernet", "super", "--budget", "80%", "--out", "small")
    assert code == 0, err
    assert "images 3×8×8" in err
    small = load_supernet("small", call_factory("own.py:coloured", what="supernet"))
    assert small.trim("100%", "flops_order", data=pictures).choices


def test_images_of_a_folder_get_the_size_that_was_typed(command, pictures):
    size = ["--channels", 4, "--layers", 1, "--input-size", 8]
    code, out, err = command("supernet", "train", "--space", FEW, *size, "--data", pictures, "--epochs", 1)
    assert code == 0, err
    assert f"--data {pictures} --input-size 8" in out
    code, out, err = command(
        "trim", "--supernet", f"runs/supernet-{plain_name(FEW)}", *QUICK, "--data", pictures, "--budget", "60%"
    )
    assert code == 0, err
    assert "images 3×8×8" in err


def test_a_factory_may_say_where_its_architecture_weights_are(command):
    own = ["--space", "own.py:told"]
    code, _, err = command("supernet", "train", *own, "--data", "digits", "--epochs", 1, "--out", "super")
    assert code == 0, err
    assert "trained as weights" not in err
    more = ["--budget", "90%", "--scorer", "alpha", "--keep-max", 2, "--out", "small"]
    code, out, err = command("trim", *own, "--supernet", "super", *more)
    assert code == 0, err
    assert "conv" in out


def test_what_may_be_a_choice_and_is_none_is_said(command):
    code, _, err = command("trim", "--space", "own.py:partly", "--budget", "90%", "--out", "small")
    assert code == 0, err
    assert "note: edges.1.ops: no choice: of its 3 modules only" in err
    assert "name them with choices=['edges.0.ops', 'edges.1']" in err


def test_a_folder_from_a_factory_needs_that_factory(command):
    code, _, err = command("trim", "--space", "own.py:toy", "--budget", "90%", "--out", "small")
    assert code == 0, err
    again = command("trim", "--supernet", "small", "--space", "darts", "--budget", "80%")
    assert refused(again, "is of no space but from a function", "--space file.py:factory")


def test_a_network_of_another_size_takes_the_images_of_the_data(command):
    data = ["--data", "digits", "--scorer", "flops_order"]
    final = ["--discretise", "--network", "cifar10", "--channels", 4, "--layers", 1]
    code, _, err = command("trim", *NB201, *data, "--budget", "20MMACs", *final, "--out", "run")
    assert code == 0, err
    images, _ = next(iter(load_data("digits").validation)), None
    assert load_architecture("run")(images[0][None]).shape == (1, 10)


def test_weights_from_a_file(command, tmp_path):
    space = supernet_space(FEW)
    net = space.supernet(nasprune.Size(4, 1))
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    code, _, err = command("trim", *NB201, *QUICK, "--budget", "50%", "--weights", "w.safetensors", "--out", "run")
    assert code == 0, err
    assert "untrained" not in err
    again = load_supernet("run")
    assert torch.equal(again.net.classifier.weight, net.classifier.weight)
    smaller = ["trim", "--space", FEW, "--supernet-channels", 2, "--supernet-layers", 1]
    assert refused(command(*smaller, "--budget", "50%", "--weights", "w.safetensors"), "has shape")


def test_the_same_command_again_gives_the_same_and_another_is_refused(command, tmp_path):
    run = ["trim", *NB201, *QUICK, "--budget", "50%", "--out", "run"]
    command(*run)
    names = ("supernet.json", "model.safetensors")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    assert command(*run)[0] == 0
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before
    assert refused(command(*run, "--seed", 1), "'run' holds another run", "seed")
    assert refused(command(*run, "--discretise"), "'run' holds another run", "discretise")
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["give a budget with --budget"]),
        (["--budget", "fast"], ["does not parse"]),
        (["--budget", "8 days"], ["does not parse"]),
        (["--budget", "60%"], ["give a supernet with --space"]),
        (["--budget", "60%", "--space", "dart"], ["did you mean darts?"]),
        (["--budget", "60%", "--space", "darts", "--count", "flops"], ["one of the counters"]),
        (["--budget", "60%", "--space", "darts", "--scorer", "perturb"], ["did you mean perturbation?"]),
        (["--budget", "60%", "--space", "darts", "--scorer", "perturbation"], ["needs data", "--data"]),
        (["--budget", "60%", "--space", "darts", "--schedule", "top"], ["unknown schedule"]),
        (["--budget", "60%", "--space", "darts", "--schedule", "topk(k=2)", "--keep-max", "2"], ["one of them"]),
        (["--budget", "60%", "--space", "darts", "--rule", "darts"], ["add --discretise"]),
        (["--budget", "60%", "--space", "darts", "--discretise", "--rule", "dart"], ["dart"]),
        (["--budget", "60%", "--space", "darts", "--epochs", "3"], ["--data"]),
        (["--budget", "60%", "--space", "darts", "--epochs", "0"], ["at least 1"]),
        (["--budget", "60%", "--space", "darts", "--weights", "none.pt"], ["no file 'none.pt'"]),
        (["--budget", "60%", "--supernet", "nowhere"], ["supernet.json", "No such file"]),
        (["--budget", "60%", "--space", "darts", "--prune-channels", "120%"], ["below 100%"]),
        (["--budget", "8ms", "--space", "darts", "--prune-channels", "20%"], ["search --model DIR"]),
        (["--budget", "8", "--space", "darts", "--count", "latency"], ["such as 8ms"]),
        (["--budget", "60%", "--space", "darts", "--discretise", "--network", "imagenet"], ["give a number"]),
        (["--budget", "1M", "--space", "darts", "--discretise", "--network", "image"], ["did you mean imagenet?"]),
        (["--budget", "60%", "--space", "own.py:toy", "--supernet-layers", "3"], ["has its own size"]),
        (["--budget", "60%", "--space", "own.py:number"], ["must return an nn.Module or nasprune.Supernet, got int"]),
        (["--budget", "60%", "--space", "own.py:broken"], ["RuntimeError: no such thing"]),
        (["--budget", "60%", "--space", "own.py:missing"], ["missing"]),
        (["--budget", "60%", "--space", "own.py:shapeless"], ["`input_shape` is 8", "such as (3, 32, 32)"]),
        (["--budget", "60%", "--space", "own.py:Unfinished"], ["abstract class"]),
        (["--budget", "60%", "--space", "darts", "--input-size", "0"], ["at least 1 pixel, got 0"]),
        (["--budget", "60%", "--space", "darts", "--data", "digits", "--input-size", "32"], ["is not resized"]),
        (["--budget", "60%", "--space", "darts", "--data", "digit"], ["did you mean digits?"]),
        (["--budget", "60%", "--space", "darts", "--out", "own.py"], ["is a file"]),
        (["--budget", "1KMACs", *map(str, NB201)], ["raise"]),
    ],
)
def test_what_cannot_be_trimmed_is_said_in_one_line(command, tmp_path, arguments, texts):
    assert refused(command("trim", *arguments), *texts)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (["--space", "nasbench", "--data", "digits"], ["did you mean nasbench201?"]),
        (["--space", "nasbench201", "--data", "digit"], ["did you mean digits?"]),
        (["--space", "nasbench201", "--data", "digits", "--input-size", "4"], ["is not resized"]),
        (["--space", "nasbench201", "--data", "digits", "--epochs", "0"], ["at least 1"]),
        (["--space", "nasbench201", "--data", "digits", "--epochs", "2", "--warmup-epochs", "3"], ["--warmup-epochs"]),
        (["--space", "nasbench201", "--data", "digits", "--channels", "0"], ["at least 1"]),
        (["--space", "own.py:toy", "--data", "digits", "--channels", "4"], ["has its own size"]),
        (["--space", "own.py:toy", "--data", "digits", "--device", "abacus"], ["cannot train on device 'abacus'"]),
        (["--data", "digits"], ["--space"]),
    ],
)
def test_what_cannot_be_trained_is_said_in_one_line(command, tmp_path, arguments, texts):
    assert refused(command("supernet", "train", *arguments), *texts)
    assert not (tmp_path / "runs").exists()


def test_the_list_shows_scorers_of_operations_and_spaces_of_supernets(command):
    code, out, _ = command("list")
    assert code == 0
    rows = [line.split() for line in out.splitlines()]
    assert ["supernet", "space", "darts"] in [row[:3] for row in rows]
    assert ["supernet", "space", "nasbench201"] in [row[:3] for row in rows]
    assert ["search", "space", "widths"] in [row[:3] for row in rows]
    assert ["scorer", "of", "operations", "perturbation"] in [row[:4] for row in rows]


def test_a_size_takes_its_images_and_classes_from_the_data():
    size = fitted(nasprune.Size(16, 8), load_data("digits"))
    assert (size.channels_in, size.resolution, size.classes, size.imagenet) == (1, 8, 10, False)
    assert size.resolution <= LARGE


@pytest.mark.parametrize(
    ("found", "first", "words"),
    [
        ("/bin/nasprune", "nasprune", "nasprune"),
        (None, "env/bin/nasprune", "env/bin/nasprune"),
        (None, "/site/nasprune/__main__.py", "python -m nasprune"),
    ],
)
def test_what_is_to_be_typed_next_can_be_typed(monkeypatch, found, first, words):
    monkeypatch.setattr("shutil.which", lambda name: found)
    monkeypatch.setattr("sys.argv", [first])
    assert typed() == words
