"""Every model of the zoo: trace, halve at random, build, verify, save, load. No option depends on a model.

    python benchmarks/zoo.py [--timm] [--only GLOB ...] [--jsonl FILE]

Each model runs in a process of its own. A row passes when the cut of about half of every free group and half of the
blocks equals the masked dense model within 1e-9 in float64, keeps the output shapes, costs what was predicted according
to fvcore, and gives the same outputs after saving and loading.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from math import prod
from pathlib import Path

TIMM = [
    "hrnet_w18_small",
    "cspresnet50",
    "dpn68",
    "res2net50_26w_4s",
    "dla34",
    "ghostnet_100",
    "mixnet_s",
    "convnext_atto",
    "dm_nfnet_f0",
    "repvgg_a0",
    "resnest14d",
    "skresnet18",
    "edgenext_xx_small",
    "poolformer_s12",
    "maxvit_rmlp_pico_rw_256",
    "swin_tiny_patch4_window7_224",
    "vit_tiny_patch16_224",
    "mobilenetv4_conv_small",
    "cspdarknet53",
    "vovnet39a",
    "mobileone_s0",
    "levit_128s",
    "coatnet_0_rw_224",
    "rexnet_100",
    "ecaresnet26t",
    "mambaout_femto",
    "nf_resnet50",
    "convnextv2_atto",
    "seresnet50",
    "xception41",
    "inception_resnet_v2",
    "selecsls42",
    "tresnet_m",
    "resnetv2_50x1_bit",
    "regnetz_b16",
    "gcresnet33ts",
    "bat_resnext26ts",
    "fastvit_t8",
    "repghostnet_050",
    "efficientvit_b0",
    "efficientvit_m0",
    "tinynet_e",
    "lcnet_050",
    "hardcorenas_a",
    "hgnet_tiny",
    "inception_next_atto",
    "focalnet_tiny_srf",
    "pvt_v2_b0",
    "davit_tiny",
    "mvitv2_tiny",
    "mixer_s32_224",
    "resmlp_12_224",
    "gmlp_s16_224",
    "starnet_s1",
    "caformer_s18",
]
LIMIT_SECONDS = 900
LAYOUT = "{:46} {:4} {:>6} {:>7} {:>6} {:>8} {:>6} {:>8}  {}"
HEADER = LAYOUT.format("model", "ok", "error", "trace s", "all s", "groups", "blocks", "prunable", "frozen")


def names(timm: bool) -> list[str]:
    """torchvision's models, quantised ones and optical flow aside, or the timm list above."""
    if timm:
        return [f"timm:{name}" for name in TIMM]
    import torchvision

    listed = torchvision.models.list_models(exclude=["quantized_*", "raft_*"])
    return [f"torchvision:{name}" for name in listed]


def make(name: str):
    """The model with random weights, example inputs, and the scope to trace."""
    import torch

    family, _, model_name = name.partition(":")
    if family == "timm":
        import timm

        model = timm.create_model(model_name)
        return model, torch.randn(1, *model.default_cfg["input_size"]), None
    import torchvision

    builder = torchvision.models.get_model_builder(model_name)
    group = builder.__module__.removeprefix("torchvision.models").strip(".").split(".")[0]
    options = {"weights": None}
    if group in ("detection", "segmentation"):
        options["weights_backbone"] = None
    if model_name in ("googlenet", "inception_v3"):
        options["init_weights"] = False
    model = builder(**options)
    if group == "detection":
        return model, ([torch.rand(3, 320, 320)],), "backbone"
    if group == "video":
        fixed = model_name.startswith(("mvit", "s3d"))
        return model, torch.randn(1, 3, 14 if model_name == "s3d" else 16, *[224 if fixed else 64] * 2), None
    fixed = model_name.startswith(("vit_", "maxvit", "swin"))
    size = 224 if fixed else 96
    return model, torch.randn(1, 3, size, size), None


def run(name: str) -> dict[str, object]:
    """One row."""
    import torch

    import nasprune
    from nasprune.cost.flops import CostModel, measure
    from nasprune.cut.stirred import distinct
    from nasprune.cut.trial_plans import half_plan
    from nasprune.cut.verify import verify
    from nasprune.graph.capture import submodule

    torch.manual_seed(0)
    model, inputs, scope = make(name)
    model = distinct(model.eval())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    start = time.perf_counter()
    graph = nasprune.trace(model, inputs, scope=scope)
    traced = time.perf_counter() - start
    plan = half_plan(graph, [group.name for group in graph.free_groups], [b.name for b in graph.free_blocks[::2]])
    small = nasprune.build(model, graph, plan)
    proof = verify(model, small, graph, plan)
    unchanged = all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    dense = CostModel(graph).dense
    counted = dense == measure(submodule(model, scope), graph.example_inputs)
    loaded = _round_trip(model, small, graph, plan)
    reasons = Counter(_kind(group.frozen_because) for group in graph.groups if group.frozen_because)
    return {
        "model": name,
        "ok": proof.ok and unchanged and counted and loaded,
        "error": proof.max_error,
        "dtype": proof.dtype,
        "trace_s": round(traced, 1),
        "total_s": round(time.perf_counter() - start, 1),
        "groups": f"{len(graph.free_groups)}/{len(graph.groups)}",
        "blocks": len(graph.free_blocks),
        "prunable": round(prunable_share(graph), 3),
        "flops_left": round(proof.flops / dense.flops, 3),
        "frozen": dict(reasons.most_common(3)),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1),
    }


def prunable_share(graph) -> float:
    """The share of parameters that sit on an axis of a free group or inside a removable block."""
    free = {part.param for group in graph.free_groups for part in group.slices}
    inside = tuple(f"{block.name}." for block in graph.free_blocks)
    sizes = {name: prod(graph.signature[name]) for name in set(graph.program.params.values()) - graph.program.buffers}
    return sum(n for name, n in sizes.items() if name in free or name.startswith(inside)) / max(1, sum(sizes.values()))


def _round_trip(model, small, graph, plan) -> bool:
    """Whether plan and weights, written and read back onto the dense model, give the same outputs."""
    import torch
    from safetensors.torch import save_model

    import nasprune
    from nasprune.cut.compare import run as run_model
    from nasprune.cut.plan import PrunePlan
    from nasprune.cut.stirred import noise_like
    from nasprune.graph.capture import submodule
    from nasprune.models.weights import load_weights

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "plan.json").write_text(plan.to_json())
        save_model(small, str(path / "model.safetensors"))
        again = nasprune.build(model, graph, PrunePlan.from_json((path / "plan.json").read_text()))
        load_weights(again, path / "model.safetensors")
    inputs = noise_like(graph.example_inputs)
    pair = [run_model(submodule(net, graph.scope), inputs) for net in (small, again)]
    return all(torch.equal(a, b) for a, b in zip(*pair, strict=True))


def _kind(reason: str) -> str:
    """A reason without the line of code, so that equal causes are counted together."""
    words = reason.split(" at ")[0].split(" (")[0]
    return words if len(words) < 60 else f"{words[:57]}…"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm", action="store_true", help="timm's list instead of torchvision's")
    parser.add_argument("--only", nargs="*", default=["*"], help="globs on names such as resnet*")
    parser.add_argument("--jsonl", type=Path, help="append rows to this file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(options.one)))
        return 0
    chosen = [n for n in names(options.timm) if any(fnmatch.fnmatch(n.partition(":")[2], g) for g in options.only)]
    failed = 0
    print(HEADER)
    for name in chosen:
        row = _in_process(name)
        failed += not row["ok"]
        print(_line(row), flush=True)
        if options.jsonl:
            with options.jsonl.open("a") as file:
                file.write(json.dumps(row) + "\n")
    print(f"{len(chosen) - failed} of {len(chosen)} models pass")
    return 1 if failed else 0


def _in_process(name: str) -> dict[str, object]:
    command = [sys.executable, "-W", "ignore", __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "ok": False, "why": f"no answer in {LIMIT_SECONDS} s"}
    if done.returncode:
        return {"model": name, "ok": False, "why": (done.stderr.strip().splitlines() or ["killed"])[-1][:200]}
    return json.loads(done.stdout.splitlines()[-1])


def _line(row: dict[str, object]) -> str:
    if "why" in row:
        return f"{row['model']:46} FAIL {row['why']}"
    frozen = "; ".join(f"{n}x {why}" for why, n in row["frozen"].items())
    cells = (row["model"], "pass" if row["ok"] else "FAIL", f"{row['error']:.0e}", row["trace_s"], row["total_s"])
    more = (row["groups"], row["blocks"], f"{100 * row['prunable']:.0f}%", frozen)
    return LAYOUT.format(*cells, *more)


if __name__ == "__main__":
    sys.exit(main())
