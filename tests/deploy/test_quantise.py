"""Networks in 8-bit integers: small files that answer alike, judged on images that their ranges do not come from."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import nasprune
from nasprune.cli import main
from nasprune.deploy import onnx, quantise
from tests.toys import tiny_net

pytest.importorskip("onnxruntime")
EXAMPLE = torch.zeros(1, 1, 8, 8)


class Net(nn.Module):
    """Batch norms, a shortcut and a depthwise convolution, on digits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 24, 3, padding=1, bias=False), nn.BatchNorm2d(24)
        self.deep, self.point = nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.Conv2d(24, 24, 1)
        self.head = nn.Linear(24 * 4, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.norm(self.stem(x)).relu(), 2)
        x = x + self.point(self.deep(x).relu()).relu()
        return self.head(nn.functional.max_pool2d(x, 2).flatten(1))


class Fixed(nn.Module):
    """A classifier whose code takes one item at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        return self.head(x.reshape(1, 64))


class Features(Net):
    """Two outputs, neither of which is a class."""

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return {"map": x, "deep": (self.point(self.deep(x)).mean((2, 3)), None)}


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    net, data = Net(), nasprune.data.load_data("digits")
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(4):
        for inputs, labels in torch.utils.data.DataLoader(data.train, 64, shuffle=True):
            adam.zero_grad()
            nn.functional.cross_entropy(net(inputs), labels).backward()
            adam.step()
    return net.eval()


def test_a_quarter_of_the_bytes_and_the_same_answers(trained, tmp_path):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    steps = []
    done = nasprune.quantise(trained, EXAMPLE, tmp_path / "new" / "small.onnx", "digits", on_phase=steps.append)
    assert [file.name for file in done.file.parent.iterdir()] == ["small.onnx"]
    assert done.before.accuracy > 0.9
    assert done.after.accuracy > done.before.accuracy - 0.03
    assert 0.9 <= done.agreement <= 1
    assert done.images == (359, 180)
    assert 0 < done.change < 0.2
    last = {step.phase: (step.done, step.of) for step in steps}
    assert last["calibrating"] == (180, 180)
    assert last["running test images"] == (359, 359)
    assert "accuracy" in str(done)
    assert done._repr_html_().count("<tr>") == 3
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    session = onnx.session(str(done.file))
    assert session.get_inputs()[0].shape[1:] == [1, 8, 8]
    assert b"QuantizeLinear" in done.file.read_bytes()


def test_large_layers_take_a_quarter_of_the_bytes(tmp_path):
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 10)).eval()
    done = nasprune.quantise(net, EXAMPLE, tmp_path / "wide.onnx", "digits")
    assert 3 < done.before.bytes / done.after.bytes < 4


def test_ranges_come_from_calibration_images_alone(trained, tmp_path, monkeypatch):
    """With ranges of dark images the network is blind: the file is made of the images that are named, not of others."""
    real = quantise._Reader

    class Dark(real):
        def __init__(self, name, images):
            super().__init__(name, (1e-3 * each for each in images))

    monkeypatch.setattr(quantise, "_Reader", Dark)
    done = nasprune.quantise(trained, EXAMPLE, tmp_path / "dark.onnx", "digits")
    assert done.after.accuracy < 0.5 < done.before.accuracy


def test_a_network_that_is_no_classifier_is_judged_by_its_outputs(tmp_path):
    done = nasprune.quantise(Features().eval(), EXAMPLE, tmp_path / "a.onnx", "digits")
    assert 0 < done.change < 0.2
    assert (done.agreement, done.before.accuracy) == (None, None)
    assert "answer" not in str(done)


def test_a_network_for_one_image_at_a_time(tmp_path):
    done = nasprune.quantise(Fixed().eval(), EXAMPLE, tmp_path / "a.onnx", "digits")
    assert done.images == (359, 180)
    assert 0.9 < done.agreement <= 1


@pytest.mark.parametrize(
    ("net", "path", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).half(), "a.onnx", "call .float"),
        (nn.Conv2d(3, 10, 3), "a.onnx", "images of shape .1, 8, 8., which model"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "a.pt", "ends with"),
    ],
)
def test_what_cannot_be_made_is_said_and_nothing_stays(tmp_path, net, path, message):
    example = EXAMPLE.to(next(net.parameters()).dtype)
    with pytest.raises(nasprune.InputError, match=message):
        nasprune.quantise(net, example, tmp_path / "out" / path, "digits")
    assert list(tmp_path.iterdir()) == []


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    net = tiny_net()
    nasprune.save(nasprune.search(net, EXAMPLE, "60%", trials=1), "run")
    with pytest.raises(SystemExit) as caught:
        main(["quantise", "run", "--data", "digits", "--model", "tests.toys:tiny_net", "--quiet"])
    printed = capsys.readouterr()
    assert (caught.value.code, printed.err) == (0, "")
    for text in ("8-bit integers", "test accuracy", "on 359 test images", "model-int8.onnx"):
        assert text in printed.out
    assert (tmp_path / "run" / "export" / "model-int8.onnx").is_file()
