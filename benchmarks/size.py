"""The main job with data at the size that users have: seconds, memory, and what the refit gains.

    python -m benchmarks.size [--images 1024] [--only NAME ...] [--budget 50%] [--threads N] [--device cuda]

Nets of torchvision as they are initialised, with batch norms estimated on smooth random images, are searched to half
of their FLOPs with `kl`, each in a process of its own. Printed for each: CPU seconds of the search, of one pass of the
dense and one of the cut net over the same images, of the dense one with freed memory used again, seconds of the slowest
phases, and the process's highest memory.
ResNet-50 is also run with less memory, which must give the same plan and weights. For the error of its outputs on 256
unseen images it is beside that compared with the same plan refitted on few images, and with equal shares of all widths
and the same refit. On a GPU seconds are those of the clock, and its own highest memory stands in brackets. A budget
such as 10%NNZ has zeros put into the weights instead, without that comparison.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import nasprune
from nasprune.common.allocation import memory_reused
from nasprune.cost.budget import Budget
from nasprune.cut.surgery import build
from nasprune.data import DataSplits
from nasprune.refit.recalibrate import recalibrate
from nasprune.refit.reconstruct import reconstruct

NETS = {
    "resnet50": 224,
    "mobilenet_v2": 224,
    "efficientnet_b0": 224,
    "convnext_tiny": 224,
    "vit_b_16": 224,
    "densenet121": 224,
    "deeplabv3_resnet50": 224,
}
SEGMENTS = {"deeplabv3_resnet50": 16}
"""Which give a class for every pixel, and how many times fewer images they see: each is eight times the work."""
CLASSES, UNSEEN, FEW, LESS = 10, 256, 28, "1.5GiB"


def images_of(count: int, size: int, seed: int) -> Tensor:
    """Smooth random images (count, 3, size, size): small noise enlarged, with some noise of its own."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 14, 14, generator=generator)
    images = nn.functional.interpolate(coarse, size=(size, size), mode="bicubic")
    return images + 0.1 * torch.randn(count, 3, size, size, generator=generator)


def net_of(name: str, images: Tensor) -> nn.Module:
    torch.manual_seed(0)
    if name in SEGMENTS:
        make = getattr(torchvision.models.segmentation, name)
        net = make(weights_backbone=None, num_classes=CLASSES).eval()
    else:
        net = getattr(torchvision.models, name)(num_classes=CLASSES).eval()
    recalibrate(net, images[:64].split(32))
    return net


def clock(device: str) -> float:
    """CPU seconds of this process; of a GPU's, those that passed."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def passed(net: nn.Module, images: Tensor, device: str) -> tuple[float, Tensor]:
    """Seconds of one pass, and the outputs."""
    start = clock(device)
    with torch.no_grad():
        outputs = torch.cat([_scores(net(batch.to(device))) for batch in images.split(32)])
    return clock(device) - start, outputs


def _scores(output: Any) -> Tensor:
    """Of classes, (n, classes); of a segmentation net those of the pixel in the middle."""
    if isinstance(output, Tensor):
        return output.cpu()
    height, width = output["out"].shape[-2:]
    return output["out"][:, :, height // 2, width // 2].cpu()


@memory_reused()
def reused(net: nn.Module, images: Tensor, device: str) -> float:
    """Seconds of one pass while freed memory is used again, as it is in a search."""
    passed(net, images[:32], device)
    return passed(net, images, device)[0]


def error(wanted: Tensor, given: Tensor) -> float:
    """Relative error of outputs about their means."""
    return float((wanted - given).norm() / (wanted - wanted.mean(0)).norm())


def measured(
    name: str, count: int, memory: str, folder: Path, compare: bool, device: str, budget: str
) -> dict[str, Any]:
    size, fewer = NETS[name], SEGMENTS.get(name, 1)
    images, unseen = images_of(count // fewer, size, 0), images_of(UNSEEN // fewer, size, 1)
    net, example = net_of(name, images).to(device), images[:1].to(device)
    labels = torch.arange(len(images)) % CLASSES
    if name in SEGMENTS:
        labels = labels[:, None, None].expand(-1, size, size)
    whole, held = (TensorDataset(*pair) for pair in ((images, labels), (images[:128], labels[:128])))
    data = DataSplits("smooth noise", whole, whole, held, held, CLASSES, tuple(images.shape[1:]))
    start = clock(device)
    result = nasprune.search(net, example, budget, data=data, evaluator="kl", allow_chance=True, memory=memory)
    spent = clock(device) - start
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    on_gpu = torch.cuda.max_memory_allocated() / 2**30 if device != "cpu" else 0.0
    wanted = passed(net, unseen, device)[1]
    found: dict[str, Any] = {
        "search": spent,
        "GiB": highest,
        "GPU GiB": on_gpu,
        "dense pass": passed(net, images, device)[0],
        "dense pass, memory reused": reused(net, images, device),
        "cut pass": passed(result.model, images, device)[0],
        "phases": {cost.phase: cost.seconds for cost in result.report.phases},
        "notes": list(result.report.notes),
        "error": error(wanted, passed(result.model, unseen, device)[1]),
        "plan": str(result.plan.to_json()) if not result.plan.masks else "zeros",
    }
    save_file(dict(result.model.state_dict()), folder / f"{memory}.safetensors")
    if compare:
        few = build(net, result.graph, result.plan).eval()
        reconstruct(net, few, result.graph, result.plan, images[:FEW].to(device))
        found[f"error, {FEW} images"] = error(wanted, passed(few, unseen, device)[1])
        equal = nasprune.search(
            net, example, budget, data=data, controller="uniform", evaluator="kl", trials=1, allow_chance=True
        )
        found["error, equal shares"] = error(wanted, passed(equal.model, unseen, device)[1])
    return found


def farthest(folder: Path, other: str, first: str = "2GiB") -> float:
    """The largest relative difference of a tensor's values between two runs."""
    a, b = (load_file(folder / f"{name}.safetensors") for name in (first, other))
    return max(
        float((a[n].double() - b[n].double()).norm() / a[n].double().norm().clamp(min=1e-12))
        for n in a
        if a[n].is_floating_point()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--only", nargs="*", default=list(NETS))
    parser.add_argument("--budget", default="50%", help="such as 50%% or 10%%NNZ")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where networks run: cpu or cuda")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "MEMORY", "FOLDER"), help="one run, for the parent process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.run:
        name, memory, folder = options.run
        compare = name == "resnet50" and memory != LESS and not Budget.parse(options.budget).limits_zeros
        found = measured(name, options.images, memory, Path(folder), compare, options.device, options.budget)
        print(json.dumps(found))
        return
    table = Table(
        "net",
        "memory",
        "search s",
        "dense + cut pass",
        "dense, with memory reused",
        "ratio",
        "GiB",
        "error on unseen",
        "slowest phases",
    )
    plans: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.only:
            for memory in ("2GiB", LESS) if name == "resnet50" else ("2GiB",):
                command = [sys.executable, "-m", "benchmarks.size", "--images", str(options.images)]
                command += ["--threads", str(options.threads), "--device", options.device]
                command += ["--budget", options.budget]
                command += ["--run", name, memory, folder]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    Console().print(f"{name} {memory}: failed\n{done.stderr[-2000:]}", highlight=False)
                    continue
                found = json.loads(done.stdout.splitlines()[-1])
                once = found["dense pass"] + found["cut pass"]
                slow = sorted(found["phases"].items(), key=lambda item: -item[1])[:4]
                others = "".join(
                    f"; {key[7:]}: {value:.3f}" for key, value in found.items() if key.startswith("error,")
                )
                table.add_row(
                    name,
                    memory,
                    f"{found['search']:.0f}",
                    f"{once:.0f}",
                    f"{found['dense pass']:.1f}, {found['dense pass, memory reused']:.1f}",
                    f"{found['search'] / once:.2f}",
                    f"{found['GiB']:.2f}" + (f" ({found['GPU GiB']:.2f})" if found["GPU GiB"] else ""),
                    f"{found['error']:.3f}{others}",
                    ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in slow),
                )
                for note in found["notes"]:
                    Console(stderr=True).print(f"{name}: {note}", highlight=False)
                if memory == LESS and name in plans:
                    same = "the same plan" if plans[name] == found["plan"] else "ANOTHER PLAN"
                    Console().print(f"{name} at {LESS}: {same}, weights within {farthest(Path(folder), LESS):.1e}")
                plans.setdefault(name, found["plan"])
        Console(width=200).print(table)


if __name__ == "__main__":
    main()
