"""A scorer checked by short trainings on the user's own images, and replaced where it does not agree with them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from nasprune.base import OpScorer, OpTask
from nasprune.data import DataSplits
from nasprune.data.splits import size_of
from nasprune.registry import Plugins
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.score.paths import drawable
from nasprune.supernet.score.surrogate import main_effects, ranks
from nasprune.supernet.structure.structure import Structure
from nasprune.supernet.train.agreement import agreement
from nasprune.supernet.train.training import BATCH, architecture_of, single_paths, train
from nasprune.supernet.trim.trimming import Data, scores_of

STEPS = 60
"""Of the training of each network."""
PATH_STEPS = 1500
"""Of the training of a supernet on single paths."""
INSTEAD = "path_loss"
AS_IT_IS = (
    "So the operations are ranked by the losses of single paths of this very supernet, which was trained on such "
    f"({INSTEAD})."
)
TRAINED = "trained networks"
TIMES = 2
"""Networks for each effect that is to be told from their losses, at least."""

log = logging.getLogger(__name__)


class Settled(OpScorer):
    """Scores that are known already. name: of where they come from."""

    def __init__(self, scores: Mapping[str, Mapping[str, float]], name: str) -> None:
        self._scores, self.name = scores, name

    def score(self, task: OpTask) -> Mapping[str, Tensor]:
        known = {choice.name: [self._scores[choice.name][op] for op in choice.ops] for choice in task.choices}
        return {name: Tensor(values) for name, values in known.items()}


@dataclass(frozen=True)
class Checked:
    """scorer: what to trim by. name: of where its scores come from. notes: what the check found, for the user."""

    scorer: OpScorer
    name: str
    notes: tuple[str, ...]


def checked_scorer(
    structure: Structure,
    scorer: OpScorer,
    name: str,
    data: DataSplits,
    seen: Data,
    *,
    networks: int,
    seed: int,
    plugins: Plugins,
    on_paths: bool = False,
    say: Callable[[str], None] = log.info,
) -> Checked:
    """The scorer's scores if they agree with losses of networks trained for a short time, else what these losses say.

    That is a regression where there are two networks at least for each effect; with fewer a copy of the supernet is
    trained on single paths, whose losses decide.

    Args:
        on_paths: whether the supernet was trained so already; it is then taken as it is.

    Raises:
        InputError: fewer than five networks are to be trained, or their losses are not finite.
    """
    scores = scores_of(structure, scorer, seen, seed)
    start = time.perf_counter()

    def on_network(number: int, count: int) -> None:
        if number % 10 == 0 or number in (1, count):
            left = round((time.perf_counter() - start) * (count / number - 1))
            say(f"check: {number} of {count} networks trained, {left // 60}:{left % 60:02} left")

    found = agreement(structure, data, scores, networks=networks, steps=STEPS, seed=seed, on_network=on_network)
    notes = [f"The scorer {name} {found}."]
    effects = sum(len(drawable(choice)) - 1 for choice in structure.choices)
    if not found.agrees and networks >= TIMES * effects:
        scores = main_effects(structure.choices, found.networks, -ranks(found.losses))
        notes.append(f"So the operations are ranked by the losses of these {networks} networks.")
        name = TRAINED
    elif not found.agrees:
        say(f"check: the scorer {name} {found}")
        if on_paths:
            scores, note = scores_of(structure, op_scorer(INSTEAD, plugins), seen, seed), AS_IT_IS
        else:
            scores, note = _of_single_paths(structure, data, seen, seed, plugins, say)
        more = f"{TIMES * effects} networks would be enough to rank them by their own losses."
        notes += [note, more]
        name = INSTEAD
    known = {one.name: dict(zip(one.ops, scores[one.name].tolist(), strict=True)) for one in structure.choices}
    return Checked(Settled(known, name), name, tuple(notes))


def _of_single_paths(
    structure: Structure, data: DataSplits, seen: Data, seed: int, plugins: Plugins, say: Callable[[str], None]
) -> tuple[dict[str, Tensor], str]:
    """The scores of a copy of the supernet that is trained on single paths, and what to tell of it."""
    start = time.perf_counter()
    epochs = max(1, math.ceil(PATH_STEPS / math.ceil(size_of(data.train) / BATCH)))
    say(f"check: training a copy of the supernet on single paths, {epochs} epochs")
    net = train(
        structure.net,
        data,
        architecture=lambda net: architecture_of(structure, net),
        draw=single_paths(structure, seed),
        epochs=epochs,
        lr=0.05,
        seed=seed,
    )
    scores = scores_of(replace(structure, net=net), op_scorer(INSTEAD, plugins), seen, seed)
    return scores, (
        f"So the operations are ranked by the losses of single paths of a supernet trained on such ({INSTEAD}), which "
        f"took {(time.perf_counter() - start) / 60:.1f} min."
    )
