"""`nasprune search` from the shell: what it prints and writes, and one line with exit code 2 for every bad input."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import nasprune
from nasprune.cli import main
from nasprune.cli.search import default_folder
from nasprune.data import load_data
from nasprune.train.measures import accuracy
from tests.cli.conftest import refused
from tests.forks import forked
from tests.toys import tiny_net

TOY = ["--model", "tests.toys:tiny_net", "--budget", "60%", "--trials", "5"]


pytestmark = pytest.mark.usefixtures("few_digits")


def test_a_search_without_data_and_weights(command, tmp_path):
    code, out, err = command("search", *TOY)
    assert code == 0, err
    assert "No weights were given" in err
    for text in ("FLOPs (multiply-adds)", "latency", "proof    passed", "nasprune.load(", "Train the result"):
        assert text in out
    folder = tmp_path / "runs" / "tiny_net-60pct"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "plan.json",
        "model.safetensors",
        "report.json",
        "report.md",
        "report.html",
        "trials.jsonl",
        "run.toml",
    }
    report = json.loads((folder / "report.json").read_text())
    small = nasprune.load(folder, model=tiny_net(seed=9))
    flops = nasprune.predict(nasprune.trace(small, torch.zeros(1, 1, 8, 8)), {}).flops
    assert flops == report["cut"]["flops"] <= 0.6 * report["dense"]["flops"]


def test_the_same_command_again_gives_the_same_and_another_is_refused(command, tmp_path):
    command("search", *TOY, "--out", "run")
    plan = (tmp_path / "run" / "plan.json").read_bytes()
    assert command("search", *TOY, "--out", "run")[0] == 0
    assert (tmp_path / "run" / "plan.json").read_bytes() == plan
    assert refused(command("search", *TOY, "--out", "run", "--seed", 1), "'run' holds another run", "seed")
    assert refused(command("search", *TOY, "--out", "run", "--criterion", "l1"), "'run' holds another run", "criterion")
    assert (tmp_path / "run" / "plan.json").read_bytes() == plan


def test_with_weights_and_data(command, tmp_path):
    save_file(tiny_net().state_dict(), tmp_path / "w.safetensors")
    model = ["--model", "tests.toys:tiny_net", "--weights", "w.safetensors", "--data", "digits"]
    code, out, err = command("search", *model, "--budget", "60%", "--trials", 2, "--out", "run")
    assert code == 0, err
    assert "No weights" not in err + out
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["settings"]["evaluator"] == "accuracy"
    assert report["settings"]["data"] == "digits"
    assert "Fine-tune it: nasprune finetune " in out
    data = load_data("digits", seed=0)
    small = nasprune.load(tmp_path / "run", model=tiny_net())
    assert report["measured"]["test accuracy cut"] == accuracy(small, data.test)


def test_own_evaluators_and_the_front_of_a_search(command, tmp_path):
    (tmp_path / "own.py").write_text("def score(model):\n    return -sum(p.numel() for p in model.parameters())\n")
    options = ["--controller", "optuna:NSGA2", "--evaluator", "own.py:score", "--out", "run"]
    code, _, err = command("search", *TOY[:-1], "20", *options)
    assert code == 0, err
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    flops = [point["cost"]["flops"] for point in report["front"]]
    assert flops == sorted(flops)
    assert report["score"] == -report["cut"]["params"] == report["front"][-1]["score"]
    assert "## Cost against score" in (tmp_path / "run" / "report.md").read_text()


@pytest.mark.parametrize("options", [["--controller", "global"], ["--controller", "auto", "--evaluator", "kl"]])
def test_one_proposal(command, tmp_path, options):
    model = ["--model", "tests.toys:tiny_net", "--data", "digits", "--budget", "60%"]
    code, _, err = command("search", *model, *options, "--criterion", "l2", "--out", "run")
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "report.json").read_text())["trials"] == 1


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        ([], ["give a budget with --budget", "2GFLOPs"]),
        (["--budget", "2 bananas"], ["'2 bananas' does not parse", "for example 2GFLOPs"]),
        (["--budget", "0%"], ["a share must be in (0%, 100%]"]),
        (["--budget", "2GFLOPs", "--model", "torchvision:resnet05"], ["did you mean resnet50"]),
        (["--budget", "2GFLOPs", "--model", "resnet50"], ["did you mean torchvision:resnet50"]),
        (["--budget", "2GFLOPs", "--criterion", "l3"], ["unknown criterion 'l3'", "did you mean l"]),
        (["--budget", "2GFLOPs", "--controller", "evolve"], ["unknown controller 'evolve'", "evolution"]),
        (["--budget", "2GFLOPs", "--evaluator", "acuracy"], ["unknown evaluator", "did you mean accuracy"]),
        (["--budget", "2GFLOPs", "--space", "width"], ["unknown search space", "did you mean widths"]),
        (["--budget", "2GFLOPs", "--plugins", "/nowhere"], ["/nowhere"]),
        (["--budget", "2GFLOPs", "--wide"], ["--wide", "nasprune --help"]),
        (["--budget", "2GFLOPs", "--trials", "many"], ["--trials", "valid integer"]),
        ([*TOY, "--weights", "/nowhere.pt"], ["cannot read weights '/nowhere.pt'"]),
        ([*TOY, "--weights", "default"], ["has no default weights"]),
        ([*TOY, "--input-size", "big"], ["--input-size must look like"]),
        ([*TOY, "--input-size", "9x9x9", "--data", "digits"], ["--input-size says 9x9x9", "gives 1x8x8"]),
        ([*TOY, "--data", "digit"], ["did you mean digits"]),
        ([*TOY, "--data", "cifar10:/nowhere"], ["no folder '/nowhere'"]),
        ([*TOY, "--evaluator", "accuracy"], ["needs data", "--data"]),
        ([*TOY, "--evaluator", "kl"], ["'kl' needs data", "--data"]),
        ([*TOY, "--evaluator", "own.py:score"], ["no file 'own.py' to take the evaluator from"]),
        ([*TOY, "--evaluator", "tests.toys:score"], ["tests.toys:score", "has no attribute 'score'"]),
        ([*TOY, "--controller", "optuna:TPF"], ["did you mean optuna:TPE"]),
        (
            ["--model", "nasprune.models:resnet20", "--budget", "60%", "--data", "digits"],
            ["(1, 8, 8)", "does not take"],
        ),
        (["--model", "tests.toys:tiny_net", "--budget", "1%"], ["least"]),
        (["--model", "tests.toys:tiny_net", "--budget", "10FLOPs"], ["least"]),
        ([*TOY, "--time-limit", "nan"], ["--time-limit", "a number of seconds above 0, got nan"]),
        ([*TOY, "--time-limit", "inf"], ["--time-limit", "got inf"]),
        ([*TOY, "--time-limit", "-1"], ["--time-limit", "got -1"]),
        ([*TOY, "--time-limit", "0"], ["--time-limit", "got 0"]),
        ([*TOY, "--trials", "0"], ["trials", "at least 1, got 0"]),
        ([*TOY, "--out", "/proc/nowhere"], ["cannot write"]),
        ([*TOY, "--out", "/dev/full"], ["is a file"]),
        ([*TOY, "--scope", "layer7"], ["layer7"]),
    ],
)
def test_bad_input_gets_one_line(command, tmp_path, arguments, texts):
    assert refused(command("search", *arguments), *texts)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


OWN = """
import sys
import torch
from torch import nn

def cnn():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

def data():
    return torch.randn(40, 3, 9, 7), torch.arange(40) % 2

def bare():
    return list(torch.randn(40, 3, 9, 7))

def ends(*arguments):
    sys.exit(3)
"""


def test_the_data_says_the_input_size_where_the_model_does_not(command, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    model = ["--model", "own.py:cnn", "--budget", "60%", "--trials", "2"]
    assert refused(command("search", *model), "the input size of 'own.py:cnn' is not known")
    code, _, err = command("search", *model, "--data", "own.py:data", "--out", "run")
    assert code == 0, err
    assert "own.py:cnn at 3×9×7" in err
    assert "test accuracy cut" in json.loads((tmp_path / "run" / "report.json").read_text())["measured"]


def test_images_without_labels(command, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    model = ["--model", "own.py:cnn", "--data", "own.py:bare", "--budget", "60%", "--trials", "2"]
    code, _, err = command("search", *model, "--evaluator", "kl", "--out", "run")
    assert code == 0, err
    assert "test accuracy cut" not in json.loads((tmp_path / "run" / "report.json").read_text())["measured"]
    assert refused(command("search", *model), "'accuracy' needs labels", "take the evaluator 'kl'")


def test_functions_that_exit_do_not_end_the_process(command, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    for option, what in (("--model", "model"), ("--data", "data"), ("--evaluator", "the evaluator")):
        assert refused(command("search", *TOY, option, "own.py:ends"), what, "own.py:ends", "SystemExit: 3")


def test_a_broken_image_is_named(command, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    for number in range(20):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9)).save(path)
    for path in (tmp_path / "images").rglob("1*.png"):
        path.write_bytes(b"torn")
    arguments = ["--model", "own.py:cnn", "--input-size", "8", "--budget", "60%", "--data", "imagefolder:images"]
    assert refused(command("search", *arguments), "data 'imagefolder:images': item", "cannot identify image file")


def test_mismatched_weights_name_key_and_shapes(command, tmp_path):
    save_file({"conv1.weight": torch.zeros(5, 1, 3, 3)}, tmp_path / "w.safetensors")
    result = command("search", *TOY, "--weights", "w.safetensors")
    assert refused(result, "'conv1.weight' has shape [5, 1, 3, 3] in the file, [4, 1, 3, 3] in the model")


def test_a_model_that_cannot_be_exported_names_the_line_and_the_scope_option(command, tmp_path):
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    input_shape = (3, 8, 8)\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.backbone = nn.Conv2d(3, 8, 3)\n"
        "    def forward(self, x):\n"
        "        y = self.backbone(x)\n"
        "        if y.sum() > 0:\n"
        "            y = y + 1\n"
        "        return y\n"
    )
    assert refused(command("search", "--model", "own.py:Net", "--budget", "60%"), "own.py", "scope")


@pytest.mark.parametrize(("limit", "may_stay"), [(8000, {"trials.jsonl"}), (10, set())])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, limit, may_stay):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        main(["search", *TOY, "--out", "run"])

    run = forked(limited, tmp_path)
    out = run.ended()
    assert run.process.exitcode == 2, out
    last = out.strip().splitlines()[-1]
    assert last.startswith("nasprune: cannot write")
    assert "File too large" in last
    left = {path.name for path in (tmp_path / "run").iterdir()} if (tmp_path / "run").exists() else set()
    assert left <= may_stay


def test_a_full_stdout_is_named():
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "nasprune", "list"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 2
    assert run.stderr.strip().endswith("nasprune: No space left on device while writing the output")


def test_an_interrupt_says_how_to_go_on(command, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("nasprune.cli.search.run", interrupt)
    code, _, err = command("search", *TOY)
    assert code == 130
    assert "nasprune: interrupted; a search that has recorded trials goes on" in err


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys\nfrom nasprune.cli import main\n"
        "try:\n    main(['search', '--help'])\nexcept SystemExit as end:\n"
        "    print(end.code, 'torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("0 False")


@pytest.mark.parametrize(
    ("model", "budget", "folder"),
    [
        ("torchvision:resnet50", "2GFLOPs", "runs/resnet50-2GFLOPs"),
        ("own.py:net", "60%, 5MParams", "runs/net-60pct_5MParams"),
    ],
)
def test_default_folder(model, budget, folder):
    assert str(default_folder(model, budget)) == folder
