"""How much each option of each choice hurts, from one backward pass: the input of the `sensitivity` controller.

Harms are second-order divergences between the dense and the changed outputs (`nasprune.harm.fisher`; Theis et al. 2018,
arXiv:1801.05787, and Molchanov et al. 2019, arXiv:1906.10771, for whole options and not for single filters).

What an option changes: the weights of the layers that read a group lose the group's dropped units, and, where the
network will be refitted, their weights on the units that stay take over what they can (least squares on the layer's
dense inputs). A dropped block is priced at its output. Options between the measured ones are interpolated.

The refit of the layers behind also makes good what is lost before them, which one backward pass cannot see. Measured
one by one (`benchmarks/damage.py`), what is left of the estimate falls from the last layer to the first, about
exponentially. So, where the network will be refitted on its own pruned inputs (`lstsq`; not `obs`, which knows nothing
of what was lost before), harms are multiplied by exp(-MENDED * s), with s the share of the network's layers that run
after the first one that reads the group, or after the block's first.

Convolutions and linear layers are seen that run torch's own code, as modules or as functions called with a weight as it
is. A group that none of them reads, as where weights are computed first, has no known harm; narrowing it is priced
above everything else together, so that it is done last. So is dropping a block that the first output of the network
does not depend on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp

import numpy as np
import torch
from torch import Tensor, nn

from nasprune.calibration.consumers import Consumer, consumers
from nasprune.calibration.layers import RowSums, weight_matrix
from nasprune.common.allocation import give_back, memory_reused
from nasprune.common.phases import Steps, unseen
from nasprune.cut.selection import best_units
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import CoupledGroup, ModelGraph
from nasprune.harm.fisher import Change, priced
from nasprune.harm.rows import damped, read_rows
from nasprune.space.choices import SearchSpace

TEMPERATURE = 4.0
MEASURED = 8  # options of a group that are measured; the others are interpolated
MENDED = 1.4
SPARE = 2**28  # bytes that are free between two layers and need not go back

Damages = Mapping[str, Mapping[int, float]]


@memory_reused()
def damages(
    model: nn.Module,
    graph: ModelGraph,
    space: SearchSpace,
    scores: Mapping[str, Tensor],
    batches: Sequence[Tensor],
    *,
    refit: bool,
    mends: bool = True,
    seed: int = 0,
    temperature: float = TEMPERATURE,
    variance: Tensor | None = None,
    on_step: Steps = unseen,
) -> Damages:
    """For every choice of the space: option -> harm, 0 for keeping everything.

    Args:
        model: the dense network; left as found.
        scores: criterion scores by group; an option keeps the best units.
        batches: calibration inputs (n, ...), at least one batch.
        refit: whether the network is refitted after the cut.
        mends: whether that also makes good what is lost in layers before.
        variance: of outputs that are numbers, (outputs,); `None` where they are classes.
        on_step: told how many batches have run back.

    Raises:
        InputError: no inputs, or outputs that are no logits.
    """
    if not batches:
        raise InputError("damages are measured on calibration inputs, got none; give data= (--data)")
    part = submodule(model, graph.scope)
    readers = {choice.name: consumers(part, graph, graph.group(choice.name)) for choice in space.widths}
    layers = {one.param: one.modules for found in readers.values() for one in found}
    measured = {choice.name: _measured(choice.options) for choice in space.widths}
    give_back()
    sums = read_rows(model, layers, batches) if refit else {}
    give_back()
    changes = _changes(graph, readers, measured, scores, sums)
    give_back()
    blocks = [choice.name for choice in space.blocks]
    totals = priced(model, graph, layers, changes, blocks, batches, seed, temperature, variance, on_step)
    found: dict[str, dict[int, float]] = {}
    for choice in space.widths:
        known = {option: totals[key] for option in measured[choice.name] if (key := (choice.name, option)) in totals}
        if known or not measured[choice.name]:
            found[choice.name] = _interpolated(choice.options, known)
    for block in space.blocks:
        if (key := (block.name, 0)) in totals:
            found[block.name] = {0: totals[key], 1: 0.0}
    if refit and mends:
        left = _left_by_refit(graph, readers)
        found = {name: {o: left.get(name, 1.0) * harm for o, harm in harms.items()} for name, harms in found.items()}
    ceiling = sum((max(harms.values()) for harms in found.values()), start=1.0)
    for unknown in space.choices:
        if unknown.name not in found:
            full = unknown.options[-1]
            found[unknown.name] = {o: ceiling * (2 - o / full) if o < full else 0.0 for o in unknown.options}
    return found


def _changes(
    graph: ModelGraph,
    readers: Mapping[str, Sequence[Consumer]],
    measured: Mapping[str, Sequence[int]],
    scores: Mapping[str, Tensor],
    sums: dict[str, RowSums],
) -> dict[str, Change]:
    """What the measured options of all groups do to the layers that read them, by the names of their weights.

    Sums take much memory, and so do changes: the widest layers come first, and each leaves `sums` as it is done.
    """
    kept = {
        name: [_kept(graph.group(name), scores[name], option) for option in options]
        for name, options in measured.items()
    }
    uses: dict[str, list[tuple[str, Consumer]]] = {}
    for name, found in readers.items():
        for one in found:
            uses.setdefault(one.param, []).append((name, one))
    changes = {param: Change() for param in uses}
    for param in sorted(uses, key=lambda param: -uses[param][0][1].columns.size):
        own = sums.pop(param, None)
        covariance = damped(own).cpu() if own is not None else None
        for name, one in uses[param]:
            if kept[name]:
                keys = [(name, option) for option in measured[name]]
                changes[param].parts.append((keys, _deltas(one, kept[name], covariance)))
        del own, covariance
        give_back(SPARE)
    return changes


def _left_by_refit(graph: ModelGraph, readers: Mapping[str, Sequence[Consumer]]) -> dict[str, float]:
    """Group or block -> the share of its harm that the layers behind cannot make good, 1 for the last layer."""
    program = graph.program
    ran = [(program.weight_of(node), program.owner(node)) for node in program.live]
    runs = {param: owner for param, owner in reversed(ran) if param is not None}
    order = {param: number for number, param in enumerate(dict.fromkeys(param for param, _ in ran if param in runs))}
    starts = {name: [order[one.param] for one in found if one.param in order] for name, found in readers.items()}
    for block in graph.blocks:
        inside = [param for param, owner in runs.items() if f"{owner}.".startswith(f"{block.name}.")]
        starts[block.name] = [order[param] for param in inside]
    last = max(len(order) - 1, 1)
    return {name: exp(-MENDED * (1 - min(numbers) / last)) for name, numbers in starts.items() if numbers}


def _measured(options: Sequence[int]) -> list[int]:
    """At most MEASURED of the options below full width, the ends among them, evenly spread."""
    below = list(options[:-1])
    if len(below) <= MEASURED:
        return below
    return [below[i] for i in sorted({round(i) for i in np.linspace(0, len(below) - 1, MEASURED)})]


def _interpolated(options: Sequence[int], known: Mapping[int, float]) -> dict[int, float]:
    """Harms of all options: never rising with the width, linear between measured ones on a square-root scale."""
    points = sorted({**known, options[-1]: 0.0}.items())
    widths = np.array([width for width, _ in points], dtype=np.float64)
    roots = np.sqrt(np.array([harm for _, harm in points]))
    falling = np.maximum.accumulate(roots[::-1])[::-1]
    return {option: float(np.interp(option, widths, falling) ** 2) for option in options}


def _kept(group: CoupledGroup, scores: Tensor, option: int) -> Tensor:
    """Which units an option keeps, boolean (width,)."""
    kept = torch.zeros(group.width, dtype=torch.bool, device="cpu")
    kept[list(best_units(group, scores, option))] = True
    return kept


def _deltas(one: Consumer, kept: Sequence[Tensor], covariance: Tensor | None) -> Tensor:
    """Change of the layer's weights, a column (groups * F * O) for each of `kept`, the units that its group keeps.

    covariance: of what it reads, (groups, F, F) in float64, where the weights of what stays take over what they can.
    """
    layer = weight_matrix(one.modules[0]).detach()
    matrix = layer.to("cpu", torch.float64)
    columns = torch.from_numpy(one.columns)
    found = [matrix.clone() for _ in kept]  # of what stays, what it takes over; of what goes, its loss
    for number, weights in enumerate(matrix):
        stays = [_staying(columns, units, number, len(weights)) for units in kept]
        taken = _taken_over(covariance[number], weights, stays) if covariance is not None else [None] * len(kept)
        for delta, stay, more in zip(found, stays, taken, strict=True):
            delta[number] = torch.where(stay[:, None], 0.0, -weights)
            if more is not None:
                delta[number, stay] = more
    kind = torch.promote_types(layer.dtype, torch.float32)
    return torch.stack([delta.reshape(-1).to(kind) for delta in found], 1).to(layer.device)


def _staying(columns: Tensor, kept: Tensor, number: int, features: int) -> Tensor:
    """Which features of one convolution group stay, boolean (F,)."""
    gone = columns[~kept].reshape(-1)
    gone = gone[(gone >= 0) & (gone.div(features, rounding_mode="floor") == number)] - number * features
    stay = torch.ones(features, dtype=torch.bool, device="cpu")
    stay[gone] = False
    return stay


def _taken_over(gram: Tensor, weights: Tensor, stays: Sequence[Tensor]) -> list[Tensor | None]:
    """What the weights of staying features (stay, O) gain by least squares, of `weights` (F, O); `None` for nothing.

    With the features that stay longest first, the Cholesky factor of what stays is a corner of that of all, and one
    factor serves every option.
    """
    order = torch.stack(list(stays)).sum(0).argsort(descending=True, stable=True)
    place = order.argsort()
    factor: Tensor | None = None
    found: list[Tensor | None] = []
    for stay in stays:
        count = int(stay.sum())
        if not 0 < count < len(stay):
            found.append(None)
        elif bool(stay[order[:count]].all()):
            if factor is None:
                factor = torch.linalg.cholesky(gram[order][:, order])
            lost = factor[count:, :count].T @ weights[order[count:]]
            gain = torch.linalg.solve_triangular(factor[:count, :count].T, lost, upper=True)
            found.append(gain[place[stay]])
        else:  # an option that keeps what a larger one does not
            found.append(torch.linalg.solve(gram[stay][:, stay], gram[stay][:, ~stay] @ weights[~stay]))
    return found
