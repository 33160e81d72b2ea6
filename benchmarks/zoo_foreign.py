"""Whole networks of other packages, as they come and never run before: search, proof, save, load, a training step.

    python -m benchmarks.zoo_foreign [--only GLOB ...] [--jsonl FILE] [--jobs N]

Each network runs in a process of its own. A row passes when a data-free search to 55 % of its FLOPs is proved, its
result loads onto a fresh instance with equal outputs, and takes a training step with gradients wherever the dense one
does. A network is refused when one sentence says why; anything else is a failure. Needs what requirements-zoo.lock has.
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
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 1200
BUDGET, TRIALS = "55%", 3

ULTRALYTICS = (
    *("v3/yolov3-tiny", "v5/yolov5n", "v6/yolov6n", "v8/yolov8n", "v8/yolov8n-seg", "v8/yolov8n-pose"),
    *("v8/yolov8n-cls", "v8/yolov8n-obb", "v8/yolov8n-ghost", "v8/yolov8n-p2", "v8/yolov8n-p6", "v9/yolov9t"),
    *("v10/yolov10n", "11/yolo11n", "11/yolo11n-seg", "11/yolo11n-pose", "11/yolo11n-cls", "11/yolo11n-obb"),
    *("12/yolo12n", "12/yolo12n-seg", "12/yolo12n-pose", "12/yolo12n-cls", "26/yolo26n", "26/yolo26n-seg"),
    *("26/yolo26n-pose", "26/yolo26n-cls", "26/yolo26n-obb", "v5/yolov5n-p6"),
)
PYTORCHCV = (
    *("alexnet", "vgg11", "bn_vgg11", "resnet10", "resnet18_wd2", "resnetbc26b", "preresnet10", "resnext14_16x4d"),
    *("seresnet10", "sepreresnet10", "cbam_resnet18", "bam_resnet18", "airnext50_32x4d_r2", "bninception"),
    *(
        "densenet121",
        "peleenet",
        "wrn50_2",
        "drnc26",
        "dpn68",
        "darknet_tiny",
        "darknet53",
        "vovnet27s",
        "hrnet_w18_small_v1",
    ),
    *(
        "squeezenet_v1_1",
        "squeezeresnet_v1_1",
        "sqnxt23_w1",
        "shufflenet_g3_wd4",
        "shufflenetv2_wd2",
        "menet108_8x1_g3",
    ),
    *(
        "mobilenet_wd4",
        "fdmobilenet_wd4",
        "mobilenetv2_wd4",
        "mobilenetv3_large_w1",
        "igcv3_wd4",
        "ghostnet",
        "mnasnet_small",
    ),
    *("proxylessnas_mobile", "fbnet_cb", "spnasnet", "efficientnet_b0", "mixnet_s", "inceptionv3", "xception"),
    *(
        "polynet",
        "nin_cifar10",
        "resnet20_cifar10",
        "preresnet20_cifar10",
        "densenet40_k12_cifar10",
        "xdensenet40_2_k24_bc_cifar10",
    ),
    *(
        "pyramidnet110_a48_cifar10",
        "wrn16_10_cifar10",
        "ror3_56_cifar10",
        "resdropresnet20_cifar10",
        "shakeshakeresnet20_2x16d_cifar10",
    ),
    *("diaresnet20_cifar10", "ibn_resnet50", "resnesta18", "regnetx002", "regnety002", "isqrtcovresnet18"),
)
SEGMENTATION = tuple(
    f"{name}-{encoder}"
    for name in (
        "Unet",
        "UnetPlusPlus",
        "MAnet",
        "Linknet",
        "FPN",
        "PSPNet",
        "PAN",
        "DeepLabV3",
        "DeepLabV3Plus",
        "UPerNet",
        "Segformer",
    )
    for encoder in ("resnet18", "mobilenet_v2")
)
MONAI = (
    *("UNet", "BasicUNet", "AttentionUnet", "SegResNet", "DynUNet", "VNet", "DenseNet121", "SEResNet50", "ResNet18"),
    *("EfficientNetBN", "HighResNet", "UNETR", "SwinUNETR", "ViT", "FlexibleUNet", "AutoEncoder", "SegResNetDS"),
)
TRANSFORMERS = (
    *("bert", "vit", "deit", "swin", "segformer", "convnext", "convnextv2", "resnet", "regnet", "mobilenet_v2"),
    *("mobilevit", "beit", "dinov2", "pvt_v2", "poolformer", "distilbert", "levit", "cvt", "dpt", "focalnet"),
)


@dataclass(frozen=True)
class Row:
    """What came of one network. verdict: "pass", "refused" or "FAIL". frozen: share of parameters that cannot go."""

    model: str
    verdict: str
    why: str = ""
    frozen: float = float("nan")
    kept: float = float("nan")
    seconds: float = 0.0
    gib: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        frozen = (
            "" if self.frozen != self.frozen else f"{100 * self.frozen:5.1f} % frozen, {100 * self.kept:5.1f} % kept"
        )
        more = self.why or "; ".join(f"{count}x {reason}" for reason, count in self.reasons.items())
        return f"{self.model:44} {self.verdict:8} {frozen:30} {self.seconds:6.1f} s {self.gib:4.1f} GiB  {more}"


def names() -> list[str]:
    families = {
        "ultralytics": ULTRALYTICS,
        "pytorchcv": PYTORCHCV,
        "smp": SEGMENTATION,
        "monai": MONAI,
        "transformers": TRANSFORMERS,
    }
    return [f"{family}:{name}" for family, found in families.items() for name in found]


def make(spec: str) -> tuple[Callable[[], Any], Any]:
    """What builds the network anew, and example inputs."""
    family, _, name = spec.partition(":")
    return {
        "ultralytics": _ultralytics,
        "pytorchcv": _pytorchcv,
        "smp": _segmentation,
        "monai": _monai,
        "transformers": _transformers,
    }[family](name)


def _ultralytics(name: str):
    import torch
    import ultralytics
    from ultralytics.nn import tasks

    kinds = {"seg": "SegmentationModel", "pose": "PoseModel", "cls": "ClassificationModel", "obb": "OBBModel"}
    kind = getattr(tasks, kinds.get(name.rpartition("-")[2], "DetectionModel"))
    folder = Path(ultralytics.__file__).parent / "cfg" / "models" / name.split("/")[0]
    side = 256 if name.endswith("p6") else 128
    return lambda: kind(str(folder / f"{name.split('/')[1]}.yaml"), verbose=False), torch.rand(1, 3, side, side)


def _pytorchcv(name: str):
    import torch
    from pytorchcv.model_provider import get_model

    side = 32 if "cifar" in name else {"inceptionv3": 299, "xception": 299, "polynet": 331}.get(name, 224)
    return lambda: get_model(name, pretrained=False), torch.randn(1, 3, side, side)


def _segmentation(name: str):
    import segmentation_models_pytorch as smp
    import torch

    kind, _, encoder = name.partition("-")
    side = 256 if kind == "PAN" else 64
    return lambda: getattr(smp, kind)(encoder, encoder_weights=None, classes=3), torch.randn(1, 3, side, side)


def _monai(name: str):
    import torch
    from monai.networks import nets

    flat = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    options: dict[str, dict[str, Any]] = {
        "UNet": flat | {"channels": (8, 16, 32, 64), "strides": (2, 2, 2), "num_res_units": 2},
        "AttentionUnet": flat | {"channels": (8, 16, 32), "strides": (2, 2)},
        "DynUNet": flat | {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]},
        "VNet": flat,
        "SEResNet50": {"spatial_dims": 2, "in_channels": 1, "num_classes": 4},
        "EfficientNetBN": {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1, "pretrained": False},
        "UNETR": flat | {"img_size": 64, "feature_size": 8, "hidden_size": 96, "mlp_dim": 192, "num_heads": 4},
        "SwinUNETR": flat | {"feature_size": 12},
        "ViT": {"spatial_dims": 2, "in_channels": 1, "img_size": 64, "patch_size": 16, "hidden_size": 96}
        | {"mlp_dim": 192, "num_layers": 4, "num_heads": 4, "classification": True},
        "FlexibleUNet": {"in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0", "spatial_dims": 2},
        "AutoEncoder": flat | {"channels": (8, 16, 32), "strides": (2, 2, 2)},
        "SegResNetDS": flat | {"init_filters": 8},
        "SegResNet": flat,
    }
    if name == "ResNet18":
        from monai.networks.nets import resnet18

        return lambda: resnet18(spatial_dims=2, n_input_channels=1, num_classes=4), torch.randn(1, 1, 64, 64)
    channels = 3 if name == "FlexibleUNet" else 1
    side = 256 if name == "AttentionUnet" else 64
    return lambda: getattr(nets, name)(**options.get(name, flat)), torch.randn(1, channels, side, side)


def _transformers(name: str):
    import torch
    import transformers as hf

    tiny = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    image = {"image_size": 64, "patch_size": 16}
    table: dict[str, tuple[str, str, dict[str, Any]]] = {
        "bert": ("BertForSequenceClassification", "BertConfig", tiny | {"vocab_size": 100}),
        "distilbert": (
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            {"vocab_size": 100, "dim": 48, "n_layers": 3, "n_heads": 4, "hidden_dim": 96},
        ),
        "vit": ("ViTForImageClassification", "ViTConfig", tiny | image),
        "deit": ("DeiTForImageClassification", "DeiTConfig", tiny | image),
        "beit": ("BeitForImageClassification", "BeitConfig", tiny | image),
        "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", tiny | image),
        "dpt": (
            "DPTForDepthEstimation",
            "DPTConfig",
            tiny
            | {
                "image_size": 64,
                "patch_size": 16,
                "num_hidden_layers": 4,
                "backbone_out_indices": [0, 1, 2, 3],
                "neck_hidden_sizes": [16, 24, 32, 48],
                "fusion_hidden_size": 24,
            },
        ),
        "swin": (
            "SwinForImageClassification",
            "SwinConfig",
            {"image_size": 64, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4},
        ),
        "segformer": ("SegformerForSemanticSegmentation", "SegformerConfig", {"depths": [1, 1, 1, 1]}),
        "convnext": (
            "ConvNextForImageClassification",
            "ConvNextConfig",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        ),
        "convnextv2": (
            "ConvNextV2ForImageClassification",
            "ConvNextV2Config",
            {"hidden_sizes": [16, 32, 48, 64], "depths": [1, 1, 2, 1]},
        ),
        "resnet": (
            "ResNetForImageClassification",
            "ResNetConfig",
            {"hidden_sizes": [32, 64], "depths": [2, 2], "embedding_size": 16},
        ),
        "regnet": (
            "RegNetForImageClassification",
            "RegNetConfig",
            {"hidden_sizes": [32, 64], "depths": [1, 2], "groups_width": 16},
        ),
        "mobilenet_v2": ("MobileNetV2ForImageClassification", "MobileNetV2Config", {"depth_multiplier": 0.5}),
        "mobilevit": ("MobileViTForImageClassification", "MobileViTConfig", {"image_size": 64}),
        "pvt_v2": ("PvtV2ForImageClassification", "PvtV2Config", {"depths": [1, 1, 1, 1]}),
        "poolformer": ("PoolFormerForImageClassification", "PoolFormerConfig", {"depths": [1, 1, 2, 1]}),
        "levit": (
            "LevitForImageClassification",
            "LevitConfig",
            {"image_size": 128, "hidden_sizes": [32, 48, 64], "depths": [2, 2, 2], "num_attention_heads": [2, 3, 4]}
            | {"key_dim": [8, 8, 8]},
        ),
        "cvt": (
            "CvtForImageClassification",
            "CvtConfig",
            {"embed_dim": [16, 32, 64], "num_heads": [1, 2, 4], "depth": [1, 2, 3]},
        ),
        "focalnet": (
            "FocalNetForImageClassification",
            "FocalNetConfig",
            {"image_size": 64, "embed_dim": 24, "depths": [1, 1, 2, 1]},
        ),
    }
    kind, config, options = table[name]
    text = name in ("bert", "distilbert")
    inputs = torch.randint(0, 100, (1, 12)) if text else torch.randn(1, 3, *(128, 128) if name == "levit" else (64, 64))

    def build() -> Any:
        return getattr(hf, kind)(getattr(hf, config)(**options))

    return build, inputs


def run(spec: str) -> Row:
    """One row."""
    import torch

    import nasprune
    from nasprune.common.inputs import Inputs
    from nasprune.cut.compare import run as outputs_of
    from nasprune.cut.life import in_training, why_not

    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    build, inputs = make(spec)
    model = build()
    start = time.perf_counter()
    try:
        result = nasprune.search(model, inputs, BUDGET, trials=TRIALS)
    except nasprune.NaspruneError as error:
        return _measured(Row(spec, "refused", f"{type(error).__name__}: {error}"[:300]), start)
    with tempfile.TemporaryDirectory() as folder:
        nasprune.save(result, Path(folder) / "run")
        fresh = build()
        loaded = nasprune.load(Path(folder) / "run", fresh)
    graph = result.graph
    pair = [outputs_of(net, graph.call) for net in (result.model, loaded)]
    unlike = len(pair[0]) != len(pair[1]) or any(not torch.equal(a, b) for a, b in zip(*pair, strict=True))
    untrained = why_not(model, result.model, [in_training(Inputs.of(inputs, model), backward=True)])
    why = "other outputs on a fresh instance" if unlike else untrained
    why = why or ("" if result.report.proof.ok else result.report.proof.reason)
    kept = result.report.cut.flops / result.report.dense.flops
    reasons = Counter(
        (group.frozen_because or "").split(" at ")[0][:60] for group in graph.groups if group.frozen_because
    )
    row = Row(spec, "FAIL" if why else "pass", why, 1 - _prunable(graph), kept, reasons=dict(reasons.most_common(3)))
    return _measured(row, start)


def _prunable(graph: Any) -> float:
    from benchmarks.zoo import prunable_share

    return prunable_share(graph)


def _measured(row: Row, start: float) -> Row:
    from dataclasses import replace

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return replace(row, seconds=round(time.perf_counter() - start, 1), gib=round(peak, 1))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=["*"], help="globs on names such as ultralytics:*")
    parser.add_argument("--jsonl", type=Path, help="append rows to this file")
    parser.add_argument("--jobs", type=int, default=1, help="networks at once")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(run(options.one))))
        return 0
    chosen = [name for name in names() if any(fnmatch.fnmatch(name, glob) for glob in options.only)]
    rows = list(_told(_rows(chosen, options.jobs), options.jsonl))
    verdicts = Counter(row.verdict for row in rows)
    shares = [row.frozen for row in rows if row.frozen == row.frozen]
    print(f"{len(rows)} networks: {verdicts['pass']} pass, {verdicts['refused']} refused, {verdicts['FAIL']} fail")
    if shares:
        print(f"frozen parameters: {100 * sum(shares) / len(shares):.1f} % on average")
    return 1 if verdicts["FAIL"] else 0


def _rows(chosen: Iterable[str], jobs: int) -> Iterator[Row]:
    with ThreadPoolExecutor(jobs) as pool:
        yield from pool.map(_in_process, chosen)


def _told(rows: Iterable[Row], file: Path | None) -> Iterator[Row]:
    for row in rows:
        print(row, flush=True)
        if file:
            with file.open("a") as out:
                out.write(json.dumps(asdict(row)) + "\n")
        yield row


def _in_process(spec: str) -> Row:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.zoo_foreign", "--one", spec]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Row(spec, "FAIL", f"no answer in {LIMIT_SECONDS} s")
    if done.returncode:
        return Row(spec, "FAIL", (done.stderr.strip().splitlines() or ["killed"])[-1][:300])
    return Row(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
