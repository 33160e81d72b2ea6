"""Accuracy back without labels: what each rung of the ladder gives and costs, on CIFAR ResNets.

    python -m benchmarks.recover [--seeds 3] [--first-seed 0] [--cases GLOB] [--steps N] [--jobs N] [--threads N]

One search a case and seed, as in `benchmarks.cifar` and on the same 2,048 training images. Its decision is then
measured with the dense net's weights and batch norms re-estimated, refitted in closed form, and polished. The 509 test
images are looked at once for each; settings were chosen by the divergence from the dense net on training images that no
step had seen, with other seeds.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fnmatch import fnmatchcase

import torch
from rich.console import Console

import nasprune
from benchmarks.cifar import ASSETS, CASES, EXAMPLE, Case, Images, Outcome, accuracy, table, trained
from nasprune.cost.flops import measure
from nasprune.refit.recalibrate import calibration_batches, recalibrate
from nasprune.train.polish import STEPS

Job = tuple[Case, int, int, int | None]  # the seed, steps of polishing, threads
RUNGS = ("cut, batch norms re-estimated", "and refitted", "and polished")


def outcomes(job: Job) -> list[Outcome]:
    """The three rungs of a case with a seed; seconds: of the search for the first two, then of polishing as well."""
    case, seed, steps, threads = job
    if threads:
        torch.set_num_threads(threads)
    model, images = trained(case.net, ASSETS), Images.read(ASSETS)
    data, unseen = images.by_seed(seed)
    dense = measure(model, EXAMPLE).flops
    start = time.perf_counter()
    result = nasprune.search(model, EXAMPLE, f"{dense * case.percent // 100}FLOPs", data=data, seed=seed)
    searched = time.perf_counter() - start
    polished = nasprune.polish(result, model, data, seed=seed, steps=steps)
    plain = nasprune.build(model, result.graph, result.plan).eval()
    recalibrate(plain, calibration_batches(data.calibration))
    nets = (plain, searched), (result.model, searched), (polished.model, searched + polished.seconds)
    found = []
    for rung, (net, seconds) in zip(RUNGS, nets, strict=True):
        kept = measure(net, EXAMPLE).flops / dense
        found.append(Outcome(case, rung, kept, accuracy(net, images.test), accuracy(net, unseen), seconds))
    return found


def _results(work: Sequence[Job], jobs: int) -> Iterator[list[Outcome]]:
    if jobs == 1:
        yield from map(outcomes, work)
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(outcomes, work)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first-seed", type=int, default=0, help="the first of them")
    parser.add_argument("--cases", default="*", help="glob, such as 'resnet20*'")
    parser.add_argument("--steps", type=int, default=STEPS, help="of polishing, at most")
    parser.add_argument("--threads", type=int, help="of torch; by default its own choice")
    parser.add_argument("--jobs", type=int, default=1, help="how many cases run at once, each in a process")
    options = parser.parse_args(arguments)
    if not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(width=150, highlight=False)
    cases = [case for case in CASES if fnmatchcase(str(case), options.cases)]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    images, found = Images.read(ASSETS), {case: [] for case in cases}
    for case in cases:
        model = trained(case.net, ASSETS)
        right = accuracy(model, images.test), accuracy(model, images.by_seed(0)[1])
        found[case].append(Outcome(case, "dense", 1.0, *right, 0.0))
    work = [(case, seed, options.steps, options.threads) for seed in seeds for case in reversed(cases)]
    for (case, seed, *_), rungs in zip(work, _results(work, options.jobs), strict=True):
        for rung in rungs:
            console.print(f"{case}, {rung.row}, seed {seed}: {rung}")
        found[case] += rungs
    title = f"no labels, {len(seeds)} seed(s), torch {torch.__version__}, {torch.get_num_threads()} thread(s)"
    console.print(table([one for case in cases for one in found[case]], title=title, unseen=True))


if __name__ == "__main__":
    main()
