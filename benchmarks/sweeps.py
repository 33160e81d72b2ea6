"""What four budgets in one run cost beside one: CPU seconds, on a CIFAR ResNet with its images.

    python -m benchmarks.sweeps [--net resnet20] [--budgets 70%,50%,35%,25%] [--threads 1]

Trace, scores, harms and what the dense network leaves for refits are found once; every further result costs its
solution, its proof and its refit. The one budget is the second of the four.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable

import torch

import nasprune
from benchmarks.cifar import ASSETS, EXAMPLE, Images, trained


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="resnet20", choices=("resnet20", "resnet56"))
    parser.add_argument("--budgets", default="70%,50%,35%,25%")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if not (ASSETS / "cifar10_resnet20.safetensors").is_file():
        print(f"skipped: no weights and images in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them")
        return
    torch.set_num_threads(options.threads)
    logging.disable(logging.WARNING)
    net, (data, _), budgets = trained(options.net, ASSETS), Images.read(ASSETS).by_seed(0), options.budgets.split(",")
    nasprune.search(net, EXAMPLE, budgets[1])  # what Python and torch load once
    one = seconds(lambda: nasprune.search(net, EXAMPLE, budgets[1], data=data))
    several = seconds(lambda: nasprune.sweep(net, EXAMPLE, budgets, data=data))
    print(
        f"{options.net}: one budget {one:.1f} s, {len(budgets)} in one run {several:.1f} s, {several / one:.2f} times"
    )


if __name__ == "__main__":
    main()
