"""How long the operations of a space take in a network of one size, measured on a device."""

from __future__ import annotations

import torch

from nasprune.supernet.genotype.spaces import OpCosts, Size, SupernetSpace
from nasprune.supernet.price.times import time_once


def op_times(space: SupernetSpace, size: Size, batch: int, device: torch.device) -> OpCosts:
    """Nanoseconds that every operation adds to the network, each measured alone on noise, and of the network without.

    Args:
        batch: images in one forward pass.
    """
    table = {
        (kind, source, target, op): 0
        for kind, topology in space.cells.items()
        for source, target in topology.edges
        for op in topology.ops
    }
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        images = torch.randn(batch, *size.input_shape[1:], generator=generator, device="cpu").to(device)
        base = time_once(space.network(space.nothing(), size).eval().to(device), images)
        seen: dict[tuple[str, int, int, int], float] = {}
        for site in space.sites(size):
            for op in space.cells[site.kind].ops:
                at = (op, site.channels, site.stride, site.resolution)
                if at not in seen:
                    shape = (batch, site.channels, site.resolution, site.resolution)
                    noise = torch.randn(shape, generator=generator, device="cpu").to(device)
                    seen[at] = time_once(space.operation(op, site.channels, site.stride).eval().to(device), noise)
                table[site.kind, site.source, site.target, op] += round(1e6 * seen[at])
    return OpCosts("latency", round(1e6 * base), table)
