"""Nets that no setting was chosen on: trained on the spot, then cut to equal FLOPs without fine-tuning.

    python -m benchmarks.other [--seeds 2] [--cases GLOB] [--rows GLOB] [--threads N]
    python -m benchmarks.other --large [--images 64]

Each net is trained for some seconds on the training part of scikit-learn's digits; the cut sees the training,
calibration and validation parts, and the test images are looked at once, after it. The nets are a deeper and narrower
residual net, a plain chain with a linear head, inverted residuals with depthwise convolutions, a net with grouped
convolutions, one with concatenations, one whose convolutions are called as functions, and one that runs an encoder on
both halves of the picture.

With --large, torchvision's nets at 224 x 224 with random weights are cut to half on random images: that shows only
that a search with data runs, and how long it takes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

import nasprune
from benchmarks.cifar import Case, Hidden, Outcome, Row, Setting, accuracy, table
from benchmarks.peers import TorchPruning
from nasprune.cost.flops import measure
from nasprune.data import ArrayDataset, DataSplits, load_data
from nasprune.models.nets import ResidualNet

EXAMPLE = torch.zeros(1, 1, 8, 8)
PERCENTS = (50, 25)
EPOCHS = 25
LARGE = ("resnet18", "mobilenet_v3_small", "densenet121")


class Block(nn.Module):
    """A residual branch of convolution, (depthwise or grouped) convolution and convolution."""

    def __init__(self, width: int, inner: int, groups: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_conv(width, inner, 1), *_conv(inner, inner, 3, groups), nn.Conv2d(inner, width, 1), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.branch(x)
        return out


class Concatenated(nn.Module):
    """A convolution whose output is put beside its input."""

    def __init__(self, width: int, more: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(*_conv(width, more, 3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.branch(x)], 1)


class Functional(nn.Module):
    """Half of its convolutions are modules, the others functions on the weights of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, padding=1)
        self.third, self.fourth = nn.Conv2d(32, 48, 3, padding=1), nn.Conv2d(48, 48, 3, padding=1)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = functional.conv2d(x, self.second.weight, self.second.bias, padding=1).relu()
        x = functional.max_pool2d(self.third(x).relu(), 2)
        x = functional.conv2d(x, self.fourth.weight, self.fourth.bias, padding=1).relu()
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Shared(nn.Module):
    """An encoder that runs on the upper and on the lower half of the picture, and a head on both results."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            *_conv(1, 24, 3), *_conv(24, 24, 3), *_conv(24, 48, 3), nn.AdaptiveAvgPool2d((1, 2))
        )
        self.head = nn.Linear(192, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.cat([self.encoder(half).flatten(1) for half in x.chunk(2, 2)], 1))
        return logits


def _conv(inputs: int, outputs: int, kernel: int, groups: int = 1) -> list[nn.Module]:
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(outputs), nn.ReLU()]


def _headed(*body: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def deep() -> nn.Module:
    """20 layers, 8 to 32 channels."""
    return ResidualNet(input_shape=(1, 8, 8), widths=(8, 16, 32), blocks=3, num_classes=10)


def plain() -> nn.Module:
    """Convolutions and pooling in a row, then two linear layers."""
    body = [*_conv(1, 24, 3), *_conv(24, 24, 3), nn.MaxPool2d(2), *_conv(24, 48, 3), *_conv(48, 48, 3), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(192, 64), nn.ReLU(), nn.Linear(64, 10))


def inverted() -> nn.Module:
    """Inverted residuals: the middle convolution is depthwise."""
    return _headed(
        *_conv(1, 24, 3), *(Block(24, 96, 96) for _ in range(2)), nn.MaxPool2d(2), Block(24, 96, 96), width=24
    )


def grouped() -> nn.Module:
    """Residual branches with convolutions in four groups."""
    return _headed(*_conv(1, 32, 3), *(Block(32, 32, 4) for _ in range(2)), nn.MaxPool2d(2), Block(32, 32, 4), width=32)


def dense() -> nn.Module:
    """Four concatenations."""
    return _headed(*_conv(1, 16, 3), *(Concatenated(16 + 12 * i, 12) for i in range(4)), width=64)


NETS: Mapping[str, Callable[[], nn.Module]] = {
    "deep": deep,
    "plain": plain,
    "inverted": inverted,
    "grouped": grouped,
    "concatenated": dense,
    "functional": Functional,
    "shared": Shared,
}
ROWS: tuple[Row, ...] = (
    Setting("nasprune"),
    Setting("nasprune, uniform", {"controller": "uniform", "trials": 1}),
    Setting(
        "nasprune, uniform, l2",
        {"controller": "uniform", "trials": 1, "criterion": "l2", "reconstruct": "none"},
    ),
    TorchPruning(),
    TorchPruning("Torch-Pruning, L2, uniform", ranked=False),
)


def trained(net: str, seed: int) -> tuple[nn.Module, DataSplits, ArrayDataset]:
    """The trained net, the data that a cut may see, and the test images."""
    data = load_data("digits", seed=seed)
    torch.manual_seed(seed)
    model = nasprune.finetune(NETS[net](), data, epochs=EPOCHS, lr=0.05, seed=seed)
    test = data.test
    images = torch.stack([test[i][0] for i in range(len(test))])  # type: ignore[arg-type]
    labels = torch.tensor([test[i][1] for i in range(len(test))])  # type: ignore[arg-type]
    seen = DataSplits(data.name, data.train, data.calibration, data.validation, Hidden(), 10, (1, 8, 8))
    return model, seen, ArrayDataset(images, labels)


def outcome(case: Case, row: Row, model: nn.Module, data: DataSplits, test: ArrayDataset, seed: int) -> Outcome:
    """Cuts and counts. Raises RuntimeError where the network that came back is above the budget."""
    whole = measure(model, EXAMPLE).flops
    start = time.perf_counter()
    small = row.cut(model, EXAMPLE, whole * case.percent // 100, data, seed)
    seconds = time.perf_counter() - start
    flops = measure(small, EXAMPLE).flops
    if flops > whole * case.percent // 100:
        raise RuntimeError(f"{row.name} on {case}: {flops} FLOPs by fvcore, {case.percent} % of {whole} allowed")
    return Outcome(case, row.name, flops / whole, accuracy(small, test), 0.0, seconds)


def large(names: Sequence[str], count: int, console: Console) -> bool:
    """Searches with random images; whether one failed."""
    import torchvision

    failed = False
    for name in names:
        torch.manual_seed(0)
        model = getattr(torchvision.models, name)().eval()
        data = torch.randn(count, 3, 224, 224), torch.arange(count) % 10
        start = time.perf_counter()
        try:
            result = nasprune.search(model, data[0][:1], "50%", data=data)
        except nasprune.NaspruneError as error:
            failed = True
            console.print(f"{name}: failed: {type(error).__name__}: {error}")
            continue
        kept = result.report.cut.flops / result.report.dense.flops
        console.print(f"{name}: {kept:.2%} of the FLOPs in {time.perf_counter() - start:.1f} s")
    return failed


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="how many, from 0 on; each trains anew")
    parser.add_argument("--cases", default="*", help="glob, such as 'deep*'")
    parser.add_argument("--rows", default="*", help="glob, such as 'nasprune'")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--large", action="store_true", help="torchvision's nets on random images")
    parser.add_argument("--images", type=int, default=64, help="of --large")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=150, highlight=False)
    if options.large:
        sys.exit(large([name for name in LARGE if fnmatchcase(name, options.cases)], options.images, console))
    found: dict[Case, list[Outcome]] = {}
    failed = False
    for net in NETS:
        cases = [case for case in (Case(net, percent) for percent in PERCENTS) if fnmatchcase(str(case), options.cases)]
        for seed in range(options.seeds if cases else 0):
            model, data, test = trained(net, seed)
            for case in cases:
                of_case = found.setdefault(case, [])
                of_case.append(Outcome(case, "dense", 1.0, accuracy(model, test), 0.0, 0.0))
                for row in (row for row in ROWS if fnmatchcase(row.name, options.rows) and not row.missing):
                    try:
                        of_case.append(outcome(case, row, model, data, test, seed))
                        console.print(f"{case}, {row.name}, seed {seed}: {of_case[-1]}")
                    except (nasprune.NaspruneError, ValueError, RuntimeError, IndexError) as error:  # of a peer, too
                        failed |= isinstance(row, Setting)
                        console.print(f"{case}, {row.name}, seed {seed}: failed: {type(error).__name__}: {error}")
    outcomes = [one for of_case in found.values() for one in of_case]
    title = f"digits, no fine-tuning, {options.seeds} seed(s), {torch.get_num_threads()} thread(s)"
    console.print(table(outcomes, title=title, unseen=False))
    sys.exit(failed)


if __name__ == "__main__":
    main()
