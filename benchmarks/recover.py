"""Accuracy back: what each rung of the ladder gives and costs, on CIFAR ResNets.

    python -m benchmarks.recover [--seeds 3] [--first-seed 0] [--cases GLOB] [--steps N] [--tune EPOCHS]
        [--jobs N] [--threads N] [--out DIR]

One search a case and seed, as in `benchmarks.cifar` and on the same 2,048 training images. Its decision is then
measured with the dense net's weights and batch norms re-estimated, refitted in closed form, and polished; none of these
needs labels. Polishing learns from 3,549 training images: all but 512 that decide, and 1,024 that nothing sees. The 509
test images are looked at once for each; settings were chosen by the divergence from the dense net on training images
that no step had seen, with other seeds.

With --tune, the refitted net is also fine-tuned on all 5,085 training images, with the dense net as its teacher, and
what Torch-Pruning cut to the same FLOPs is fine-tuned in the same way. The dense nets were trained on these images, so
images that no step saw do not exist there.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import nasprune
from benchmarks.cifar import ASSETS, CASES, EXAMPLE, Case, Images, Outcome, accuracy, table, trained
from benchmarks.peers import TorchPruning
from benchmarks.rows import WIDTH, Failed, Record, add_options, worked
from nasprune.cost.flops import measure
from nasprune.data.augment import flip_and_shift
from nasprune.refit.recalibrate import calibration_batches, recalibrate
from nasprune.train.polish import STEPS

RUNGS = ("cut, batch norms re-estimated", "and refitted", "and polished")
TUNED, PEER = "refitted, then fine-tuned", "Torch-Pruning, L2, global"


@dataclass(frozen=True)
class Job:
    """A case with a seed. steps: of polishing. epochs: of fine-tuning; 0 is none. peer: by Torch-Pruning, not here."""

    case: Case
    seed: int
    steps: int
    epochs: int
    peer: bool = False


def outcomes(job: Job) -> list[Outcome]:
    """The rungs of a case with a seed; seconds: of all that was done up to there."""
    model, images = trained(job.case.net, ASSETS), Images.read(ASSETS)
    return _peers(job, model, images) if job.peer else _own(job, model, images)


def _own(job: Job, model: nn.Module, images: Images) -> list[Outcome]:
    data, _ = images.by_seed(job.seed)
    start = time.perf_counter()
    result = nasprune.search(model, EXAMPLE, f"{_allowed(job, model)}FLOPs", data=data, seed=job.seed)
    searched = time.perf_counter() - start
    plain = nasprune.build(model, result.graph, result.plan).eval()
    recalibrate(plain, calibration_batches(data.calibration))
    nets = [(RUNGS[0], plain, searched), (RUNGS[1], result.model, searched)]
    if job.steps:
        more, _ = images.by_seed(job.seed, more=True)
        polished = nasprune.polish(result, model, more, seed=job.seed, steps=job.steps)
        nets.append((RUNGS[2], polished.model, searched + polished.seconds))
    if job.epochs:
        tuned, seconds = _tuned(job, result, model, images)
        nets.append((TUNED, tuned, searched + seconds))
    return [_outcome(job, *one, model, images) for one in nets]


def _peers(job: Job, model: nn.Module, images: Images) -> list[Outcome]:
    data, _ = images.by_seed(job.seed)
    start = time.perf_counter()
    cut = TorchPruning().cut(model, EXAMPLE, _allowed(job, model), data, job.seed)
    seconds = time.perf_counter() - start
    tuned, more = _tuned(job, cut, model, images)
    nets = (PEER, cut, seconds), (f"{PEER}, then fine-tuned", tuned, seconds + more)
    return [_outcome(job, *one, model, images) for one in nets]


def _allowed(job: Job, model: nn.Module) -> int:
    return measure(model, EXAMPLE).flops * job.case.percent // 100


def _tuned(
    job: Job, net: nasprune.SearchResult | nn.Module, dense: nn.Module, images: Images
) -> tuple[nn.Module, float]:
    """With the defaults, all training images, the dense network as the teacher; and the seconds."""
    data = replace(images.by_seed(job.seed)[0], train=images.train)
    start = time.perf_counter()
    tuned = nasprune.finetune(net, data, teacher=dense, epochs=job.epochs, augment=flip_and_shift, seed=job.seed)
    return tuned, time.perf_counter() - start


def _outcome(job: Job, rung: str, net: nn.Module, seconds: float, dense: nn.Module, images: Images) -> Outcome:
    kept = measure(net, EXAMPLE).flops / measure(dense, EXAMPLE).flops
    unseen = 0.0 if "fine-tuned" in rung else accuracy(net, images.by_seed(job.seed)[1])
    return Outcome(job.case, rung, kept, accuracy(net, images.test), unseen, seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, "recover")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of the seeds")
    parser.add_argument("--cases", default="*", help="glob, such as 'resnet20*'")
    parser.add_argument("--steps", type=int, default=STEPS, help="of polishing, at most; 0 leaves it out")
    parser.add_argument("--tune", type=int, default=0, help="epochs of fine-tuning, beside Torch-Pruning")
    options = parser.parse_args(arguments)
    if not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        return
    logging.disable(logging.WARNING)
    console = Console(width=WIDTH, highlight=False)
    cases = [case for case in CASES if fnmatchcase(str(case), options.cases)]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [Job(case, seed, options.steps, options.tune) for seed in seeds for case in cases]
    if options.tune and TorchPruning().missing:
        console.print(f"{PEER} is left out: {TorchPruning().missing}")
    elif options.tune:
        jobs += [replace(job, peer=True) for job in jobs]
    images, found = Images.read(ASSETS), {case: list[Outcome]() for case in cases}
    title = f"accuracy back, {len(seeds)} seed(s), torch {torch.__version__}, {options.threads or 'all'} thread(s)"
    record = Record(options.out, title, lambda: _table(found, title))
    for case in cases:
        model = trained(case.net, ASSETS)
        right = accuracy(model, images.test), accuracy(model, images.by_seed(0)[1])
        found[case].append(Outcome(case, "dense", 1.0, *right, 0.0))
        record.add(*found[case])
    for job, rungs in worked(outcomes, jobs, at_once=options.jobs, threads=options.threads):
        if isinstance(rungs, Failed):
            console.print(f"{job.case}, seed {job.seed}: {rungs}")
            continue
        for rung in rungs:
            console.print(f"{job.case}, {rung.row}, seed {job.seed}: {rung}")
        found[job.case] += rungs
        record.add(*(Seeded(job.seed, rung) for rung in rungs))
    console.print(_table(found, title))


@dataclass(frozen=True)
class Seeded:
    """An outcome with its seed."""

    seed: int
    outcome: Outcome


def _table(found: dict[Case, list[Outcome]], title: str) -> Table:
    return table([one for outcomes in found.values() for one in outcomes], title=title, unseen=True)


if __name__ == "__main__":
    main()
