"""Networks in other formats: each gives what the network gives, for any number of items, or says what it cannot do."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import nasprune
from nasprune.common.inputs import Inputs
from nasprune.deploy import module, programs
from nasprune.deploy.captured import captured, items
from nasprune.deploy.difference import difference
from nasprune.deploy.formats import FORMATS
from tests.nets import EXAMPLE, TinyResNet

WITH_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="no OpenVINO here; `make test-runtimes`")
WITH_EXECUTORCH = pytest.mark.skipif(find_spec("executorch") is None, reason="no ExecuTorch; `make test-runtimes`")


class Odd(nn.Module):
    """What is in no plain chain of layers: several outputs, parameters and buffers of its own, attention, no_grad."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, (3, 1), padding=(1, 0), groups=1)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 16))
        self.register_buffer("shift", torch.linspace(-1, 1, 16))
        self.forward_ = nn.Linear(16, 4, bias=False)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = nn.functional.silu(self.conv(x), inplace=True)
        x = x.flatten(2).transpose(1, 2) * self.scale + self.shift
        with torch.no_grad():
            x = self.drop(self.attention(x, x, x)[0])
        first, second = self.forward_(x.mean(1)).split(2, 1)
        return {"both": (first, second[:, 1:]), "items": torch.full((x.shape[0],), float("inf"))}


class Upside(nn.Module):
    """Transposed convolution, group, layer and one-dimensional batch norm; one convolution that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 8, 3, stride=2, output_padding=1, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.twice = nn.Conv2d(8, 8, 3, padding="same", padding_mode="zeros", dilation=2)
        self.last = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6, eps=1e-3), nn.LayerNorm(6, bias=False))

    def forward(self, x):
        x = self.twice(self.twice(self.norm(self.up(x))).relu())
        return self.last(x.mean((2, 3)))


class Mixed(nn.Module):
    """Numbers and `None` among its inputs and outputs; gives a tensor twice, and an input."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, x, scale=1.0, mask=None, *, y):
        x = x + y
        z = self.last(self.first(x * scale).relu())
        return {"z": z, "again": (z, None), "y": y, "count": z.shape[1], "one": torch.ones(3)}


MIXED = Inputs((torch.randn(2, 6), 2.0, None), {"y": torch.randn(2, 6)})


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 6, padding_idx=0)

    def forward(self, words, scale):
        return (self.table(words) * scale[:, None, None]).sum(1)


class Pairs(nn.Module):
    """Its code takes two items, and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        first, second = x.unbind(0)
        return self.layer(torch.stack([first + second, first - second]))


WORDS = (torch.tensor([[1, 2, 3]]), torch.tensor([0.5]))


def ran_here(path, calls):
    """As `module.outputs`, without a process of its own."""
    names = {"__name__": path.stem, "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), names)
    net = names["load"]()
    with torch.no_grad():
        return [net(*inputs.tensors) for inputs in calls]


@pytest.mark.parametrize(
    ("net", "inputs"), [(TinyResNet(), EXAMPLE), (Odd(), EXAMPLE), (Upside(), EXAMPLE), (Words(), WORDS)]
)
def test_plain_python(net, inputs, tmp_path):
    net, pair = net.eval(), items(Inputs.of(inputs), 2)
    module.write(captured(net, pair, free=True), tmp_path / "small.py", "a net")
    other = items(Inputs.of(inputs), 3)
    with torch.no_grad():
        assert difference(other.call(net), ran_here(tmp_path / "small.py", [other])[0]) < 1e-6
    assert "nasprune" not in (tmp_path / "small.py").read_text().replace("Made by `nasprune export`", "")


def test_plain_python_is_readable(tmp_path):
    module.write(captured(TinyResNet(depth=1).eval(), Inputs.of(EXAMPLE), free=False), tmp_path / "small.py", "a net")
    text = (tmp_path / "small.py").read_text()
    assert "self.blocks_0_conv1 = nn.Conv2d(16, 16, 3, padding=1, bias=False)" in text
    assert "        # blocks.0\n        x1 = self.blocks_0_conv1(x)\n" in text
    assert "Batches of 1." in text


def test_plain_python_runs_where_nasprune_is_not(tmp_path):
    done = nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "new" / "small.py", title='an """odd""" \\title')
    assert [path.name for path in done.files] == ["small.py", "small.safetensors"]
    assert (done.format, done.batch) == ("module", None)
    assert done.error < 1e-6
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["small.py", "small.safetensors"]


@pytest.fixture(scope="module")
def of_timm():
    """A ResNet of timm with every free group halved, and the graph that it was cut by."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("resnet10t", num_classes=7).eval()
    graph = nasprune.trace(net, torch.zeros(1, 3, 32, 32))
    keep = {group.name: tuple(range(group.width // 2)) for group in graph.free_groups}
    plan = nasprune.PrunePlan(signature=graph.signature, keep=keep)
    return net, graph, plan


def test_widths_as_timm_reads_them(of_timm, tmp_path):
    import timm
    from safetensors.torch import load_file
    from timm.models import adapt_model_from_string

    small = nasprune.build(*of_timm).eval()
    images = torch.randn(2, 3, 32, 32)
    done = nasprune.export(small, images, tmp_path / "small.txt", format="timm")
    assert [path.suffix for path in done.files] == [".txt", ".safetensors", ".json"]
    assert done.error < 1e-6
    net = adapt_model_from_string(timm.create_model("resnet10t", num_classes=7), done.files[0].read_text())
    net.load_state_dict(load_file(done.files[1]))
    with torch.no_grad():
        assert torch.allclose(net.eval()(images), small(images), atol=1e-5)


def test_what_timm_cannot_say_is_refused(of_timm, tmp_path):
    net, graph, plan = of_timm
    dropped = replace(plan, keep={}, drop=(graph.free_blocks[0].name,))
    small = nasprune.build(net, graph, dropped).eval()
    with pytest.raises(nasprune.InputError, match=r"cannot say what else was cut here.*blocks=False"):
        nasprune.export(small, torch.zeros(1, 3, 32, 32), tmp_path / "small.txt")
    with pytest.raises(nasprune.InputError, match="only a network that timm has built"):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "small.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["small.pt2", "small.pt"])
@pytest.mark.parametrize(("net", "inputs"), [(TinyResNet(), EXAMPLE), (Words(), WORDS)])
def test_files_of_torch(net, inputs, name, tmp_path):
    done = nasprune.export(net, inputs, tmp_path / name)
    assert done.batch is None
    assert done.error < 1e-6
    assert net.training  # as it was


def test_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    done = nasprune.export(Odd(), EXAMPLE, tmp_path / "small.onnx")
    assert done.batch is None
    assert done.error <= 1e-4
    assert int(done.details["opset"]) >= 18
    import onnxruntime

    session = onnxruntime.InferenceSession(str(done.files[0]), providers=["CPUExecutionProvider"])
    assert [entry.shape for entry in session.get_inputs()] == [["batch", 3, 8, 8]]
    assert [entry.name for entry in session.get_outputs()] == ["both.0", "both.1", "items"]


@pytest.mark.parametrize(("net", "inputs"), [(TinyResNet, EXAMPLE), (Mixed, MIXED)])
def test_outputs_of_onnx_whose_keys_are_none_or_inputs_too_are_named_by_the_exporter(net, inputs, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    done = nasprune.export(net(), inputs, tmp_path / "small.onnx")
    assert done.error <= 1e-4
    session = onnxruntime.InferenceSession(str(done.files[0]), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_outputs()]
    assert len(set(names)) == len(names) > 0
    assert "z" not in names


def noise_like(inputs):
    """The same call with noise that is always the same, as tests of tolerances need it."""
    return Inputs.of(inputs).map(lambda value: torch.randn_like(value) if value.is_floating_point() else value)


@WITH_OPENVINO
@pytest.mark.parametrize(("net", "inputs"), [(Odd, EXAMPLE), (Upside, EXAMPLE), (Words, WORDS), (Mixed, MIXED)])
def test_openvino(net, inputs, tmp_path):
    done = nasprune.export(net(), noise_like(inputs), tmp_path / "small.xml")
    assert [path.name for path in done.files] == ["small.xml", "small.bin"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.bin", "small.xml"]
    assert done.batch is None
    assert done.error <= 1e-5


@WITH_OPENVINO
def test_openvino_keeps_the_sizes_that_are_fixed(tmp_path):
    nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "small.xml")
    assert "<rt_info>" in (tmp_path / "small.xml").read_text()
    assert 'shape="?,3,8,8"' in (tmp_path / "small.xml").read_text()


@WITH_OPENVINO
def test_openvino_reports_nothing_to_its_makers(tmp_path):
    code = (
        "import sys, torch, nasprune; nasprune.export(torch.nn.Linear(4, 4), torch.randn(2, 4), 'small.xml'); "
        "print('openvino' in sys.modules, any(name.startswith('openvino_telemetry') for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


@WITH_EXECUTORCH
@pytest.mark.parametrize(("net", "inputs"), [(Odd, EXAMPLE), (Upside, EXAMPLE), (Words, WORDS), (Mixed, MIXED)])
def test_executorch(net, inputs, tmp_path):
    done = nasprune.export(net(), noise_like(inputs), tmp_path / "small.pte")
    assert [path.name for path in tmp_path.iterdir()] == ["small.pte"]
    assert done.batch == len(Inputs.of(inputs).tensors[0])
    assert done.error <= 1e-4
    assert int(done.details["operators that XNNPACK does not run"]) >= 0


def test_numbers_and_none_among_inputs_and_outputs(tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    done = nasprune.export(Mixed(), MIXED, tmp_path / "small.onnx")
    assert (done.batch, done.error < 1e-5) == (None, True)
    session = onnxruntime.InferenceSession(str(done.files[0]), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["x", "y"]
    assert len(session.get_outputs()) == 4


def test_what_onnx_cannot_say_is_named(tmp_path):
    pytest.importorskip("onnxscript")

    class Svd(nn.Linear):
        def forward(self, x):
            return torch.linalg.svd(super().forward(x))[1]

    with pytest.raises(nasprune.InputError, match=r"as ONNX: No ONNX function found for .*svd"):
        nasprune.export(Svd(4, 4), torch.randn(2, 4, 4), tmp_path / "small.onnx")


def test_one_number_of_items_where_the_code_takes_no_other(tmp_path, caplog):
    caplog.set_level("INFO", "nasprune")
    done = nasprune.export(Pairs(), torch.randn(2, 4), tmp_path / "small.pt2")
    assert done.batch == 2
    assert "batches of 2" in str(done)
    assert "not for any number of items" in caplog.text


def test_what_gives_something_else_is_not_kept(tmp_path, monkeypatch):
    (tmp_path / "small.pt2").write_bytes(b"as before")
    other = captured(TinyResNet(seed=1).eval(), Inputs.of(EXAMPLE), free=False)
    write = programs.write_pt2
    monkeypatch.setattr(programs, "write_pt2", lambda found, path: write(other, path))
    with pytest.raises(nasprune.VerificationError, match=r"differs from PyTorch by .* nothing was kept"):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "small.pt2")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("small.pt2", b"as before")]


@dataclass
class Given:
    """A container that torch does not know."""

    logits: Tensor
    features: Tensor


class Told(TinyResNet):
    def forward(self, x):
        return Given(super().forward(x), x.mean((2, 3)))


def test_outputs_in_a_class_that_torch_does_not_know(tmp_path):
    done = nasprune.export(Told(), EXAMPLE, tmp_path / "small.pt2")
    assert (done.batch, done.error) == (None, 0)


def test_files_of_something_else_are_not_replaced(tmp_path):
    """The weights of a run are called as those of a module may be, and a user's code ends with .py as well."""
    (tmp_path / "model.safetensors").write_bytes(b"of a run")
    (tmp_path / "train.py").write_text("import torch")
    with pytest.raises(nasprune.InputError, match=r"'model.safetensors' beside it, and a file of that name is there"):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "model.py")
    with pytest.raises(nasprune.InputError, match=r"train.py' is there already and was not written by an export"):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "train.py")
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {"model.safetensors": b"of a run", "train.py": b"import torch"}
    for _ in range(2):  # its own may be replaced
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "small.py")


def test_half_precision_where_the_runtime_has_it(tmp_path):
    net = TinyResNet().to(torch.bfloat16)
    assert nasprune.export(net, EXAMPLE, tmp_path / "small.pt2").error == 0
    module.write(captured(net.eval(), Inputs.of(EXAMPLE.bfloat16()), free=False), tmp_path / "small.py", "a net")
    assert ran_here(tmp_path / "small.py", [Inputs.of(EXAMPLE.bfloat16())])[0].dtype == torch.bfloat16


def test_a_network_that_does_not_look_at_its_inputs_is_named(tmp_path):
    net, images = TinyResNet(), torch.randn(1, 3, 8, 8)
    assert nasprune.export(net, images, tmp_path / "small.pt2").note == ""
    nn.init.zeros_(net.head.weight)
    assert "hardly depends on these inputs" in nasprune.export(net, images, tmp_path / "small.pt2").note


def test_inputs_that_the_network_does_not_take(tmp_path):
    with pytest.raises(nasprune.InputError, match=r"does not run on inputs of shape \[1, 1, 8, 8\]"):
        nasprune.export(TinyResNet(), EXAMPLE[:, :1], tmp_path / "small.pt2")


def test_what_another_library_raises_is_one_sentence(tmp_path, monkeypatch):
    def fails(path, calls):
        raise KeyError("no such kernel")

    monkeypatch.setitem(FORMATS, "pt2", replace(FORMATS["pt2"], outputs=fails))
    with pytest.raises(nasprune.InputError, match="cannot be written and run as pt2: KeyError: 'no such kernel'"):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / "small.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small.tflite", {}, r"'small.tflite' says no format; end it with one of .onnx \(onnx\)"),
        ("small.pt2", {"format": "onxx"}, "unknown format 'onxx': did you mean onnx"),
        ("small.pt2", {"format": "module"}, "ends with '.py', got 'small.pt2'"),
        ("small-net.py", {}, "cannot be imported by its name"),
        ("class.py", {}, "cannot be imported by its name"),
        ("json.py", {}, "would hide the module 'json'"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(name, options, message, tmp_path):
    with pytest.raises(nasprune.InputError, match=message):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("module", "package", "name"),
    [("onnx", "onnxruntime", "small.onnx"), ("openvino",) * 2 + ("small.xml",), ("executorch",) * 2 + ("small.pte",)],
)
def test_a_missing_package_is_said_with_the_line_to_type(module, package, name, tmp_path, monkeypatch):
    monkeypatch.setattr(f"nasprune.deploy.{module}.find_spec", lambda asked: None if asked == package else asked)
    line = rf"needs {package}; install (it )?with: pip install 'nasprune\[{module}\]'"
    with pytest.raises(nasprune.InputError, match=line):
        nasprune.export(TinyResNet(), EXAMPLE, tmp_path / name)


def test_operators_of_other_libraries_are_refused_in_plain_python():
    from torchvision.ops import RoIAlign

    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.align = RoIAlign(2, 1.0, -1)

        def forward(self, x, boxes):
            return self.align(x, boxes)

    inputs = Inputs.of((EXAMPLE, torch.tensor([[0.0, 1, 1, 5, 5]])))
    with pytest.raises(nasprune.InputError, match="torchvision::roi_align"):
        module.write(captured(Boxes().eval(), inputs, free=False), Path("small.py"), "")


def test_every_format_has_a_suffix_of_its_own():
    assert len({form.suffix for form in FORMATS.values()}) == len(FORMATS)
