"""NAS-Bench-201 supernets on the CIFAR-10 images at hand: untrained, trained bilevel, and trained on single paths."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from benchmarks.digits import looked_at
from nasprune import Size, Supernet, supernet_space
from nasprune.data import ArrayDataset, DataSplits
from nasprune.data.splits import split_indices
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.train.training import architecture_of, single_paths, train
from nasprune.supernet.trim.trimming import scores_of

SIZE = Size(8, 1, resolution=16)
KINDS = ("untrained", "bilevel", "paths")
EPOCHS = 20
PARTS = {"train": 4085, "calibration": 200, "validation": 800}
MEAN, DEVIATION = (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)

log = logging.getLogger("benchmarks")


def cifar(folder: Path, seed: int) -> DataSplits:
    """The training images of the folder at 16x16, normalised, in three parts; no test image is read."""
    with np.load(folder / "cifar10_train5085.npz") as file:
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file["labels"]).long()
    small = nn.functional.avg_pool2d(images, 2)
    whole = ArrayDataset((small - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None], labels)
    shares = [size / sum(PARTS.values()) for size in PARTS.values()]
    chosen = split_indices(labels.tolist(), shares, seed)
    parts = {name: whole.subset(indices) for name, indices in zip(PARTS, chosen, strict=True)}
    return DataSplits("cifar", num_classes=10, input_shape=(3, 16, 16), test=parts["calibration"], **parts)


def supernet(kind: str, seed: int, data: DataSplits, folder: Path, epochs: int = EPOCHS) -> Structure:
    """One of `KINDS`; trained ones are kept in `folder`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        space = supernet_space("nasbench201")
        net = space.supernet(SIZE)
        example = torch.randn(4, *SIZE.input_shape[1:])
    structure = Supernet.from_model(net, example, space=space).structure
    if kind == "untrained":
        return structure
    file = folder / f"{kind}-{seed}-{epochs}.safetensors"
    if file.is_file():
        net.load_state_dict(load_file(file))
        return replace(structure, net=net.eval())
    start = time.perf_counter()
    trained = train(
        structure.net,
        data,
        architecture=lambda net: architecture_of(structure, net),
        epochs=epochs,
        warmup_epochs=0 if kind == "paths" else epochs // 4,
        draw=single_paths(structure, seed) if kind == "paths" else None,
        lr=0.05,
        arch_lr=1e-2,
        seed=seed,
    )
    log.info("%s supernet of seed %d: %d epochs in %.0f s", kind, seed, epochs, time.perf_counter() - start)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(trained.state_dict(), file)
    return replace(structure, net=trained)


def scores(structure: Structure, scorer: str, data: DataSplits, seed: int, cache: Path) -> tuple[np.ndarray, float]:
    """(6, 4), without `none`, and the CPU seconds that they took; what the file `cache` holds is not computed again."""
    known = json.loads(cache.read_text()) if cache.is_file() else {}
    if scorer not in known:
        start = time.process_time()
        found = scores_of(structure, op_scorer(scorer), looked_at(data), seed)
        took = time.process_time() - start
        rows = [found[choice.name][list(choice.connecting)].tolist() for choice in structure.choices]
        known[scorer] = {"scores": rows, "seconds": took}
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known) + "\n")
        log.info("%s: %s in %.1f CPU s", cache.stem, scorer, took)
    return np.array(known[scorer]["scores"]), known[scorer]["seconds"]
