"""Networks cut to half of everything and exported: `make bench-export` prints what each format gives, and how near.

The cut is that of `nasprune inspect --verify`: half of every free group by L2 norm, every second block gone. Every file
is run and compared by `nasprune.export` itself; a row is printed for every network and format.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

import nasprune
from nasprune.calibration.scoring import WeightContext, score_all
from nasprune.cut.selection import select
from nasprune.errors import NaspruneError
from nasprune.models.loading import load_model
from nasprune.registry import load
from nasprune.space.choices import Decision

FORMATS = {
    "onnx": "small.onnx",
    "pt2": "small.pt2",
    "torchscript": "small.pt",
    "module": "small.py",
    "openvino": "small.xml",
    "executorch": "small.pte",
}
NETS = (
    "torchvision:resnet18",
    "torchvision:mobilenet_v3_small",
    "torchvision:efficientnet_b0",
    "torchvision:shufflenet_v2_x1_0",
    "torchvision:densenet121",
    "torchvision:googlenet",
    "torchvision:regnet_y_400mf",
    "torchvision:convnext_tiny",
    "torchvision:swin_t",
    "torchvision:vit_b_16",
    "torchvision:lraspp_mobilenet_v3_large",
    "torchvision:r2plus1d_18",
    "timm:repvgg_a0",
    "timm:mobilevit_xxs",
)
SIDES = {"torchvision:vit_b_16": None, "timm:mobilevit_xxs": None, "torchvision:r2plus1d_18": "3x8x64x64"}
"""Input sizes that are not 96; `None` for the network's own."""


def disturbed(model: nn.Module) -> None:
    """Gives an untrained network random norms, and weights where it begins with zeros: so its inputs reach its outputs.

    Convolutions and linear layers keep the size of what they read on the average (He et al. 2015, arXiv:1502.01852).
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            noise = torch.randn(value.shape, generator=generator) if value.is_floating_point() else None
            if noise is None:
                continue
            if name.endswith("running_var"):
                value.copy_(1 + 0.2 * noise.abs())
            elif value.ndim >= 2:
                value.copy_(noise * (2 / value[0].numel()) ** 0.5)
            elif value.ndim == 1 and name.endswith("weight"):
                value.copy_(1 + 0.1 * noise)
            else:
                value.add_(0.1 * noise)


def halved(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> nn.Module:
    """Half of every free group is kept, and every second free block dropped; what cannot be proved stays whole."""
    from nasprune.cut.verify import prove

    graph = nasprune.trace(model, inputs)
    space = nasprune.search_space(graph)
    half = dict(space.scaled(0.5)) | {choice.name: number % 2 for number, choice in enumerate(space.blocks)}
    scores = score_all(graph, load("criteria", "l2")(), WeightContext(model, graph, seed=0))
    return prove(model, graph, select(graph, scores, Decision.of(half))).model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("nets", nargs="*", default=NETS)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'network':40} {'format':12} {'difference':>10} {'batch':>6} {'seconds':>8}", flush=True)
    for spec in options.nets:
        loaded = load_model(spec, input_size=SIDES.get(spec, "96"))
        disturbed(loaded.model)
        inputs = loaded.example_inputs()
        small = halved(loaded.model, inputs)
        for kind in options.formats:
            begin = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    done = nasprune.export(small, inputs, Path(folder) / FORMATS[kind])
                    said = f"{done.error:10.1e} {done.batch or 'any':>6}"
                    said += " (blind)" if done.note else ""
                except NaspruneError as error:
                    said = f"refused: {error}"
            print(f"{spec:40} {kind:12} {said} {time.perf_counter() - begin:8.1f}", flush=True)


if __name__ == "__main__":
    main()
