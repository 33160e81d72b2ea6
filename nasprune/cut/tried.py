"""Whether a plan can be carried out: its cut model is built, run and compared, and what fails is found by bisection."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import torch
from torch import nn

from nasprune.common.untouched import undisturbed
from nasprune.cut.blame import innermost
from nasprune.cut.compare import Match, compare
from nasprune.cut.life import first_line, is_large, resized
from nasprune.cut.plan import PrunePlan
from nasprune.cut.stirred import noise_like
from nasprune.cut.surgery import draft
from nasprune.errors import NaspruneError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph

Name = TypeVar("Name", bound=Hashable)


def trial(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> Match:
    """Builds `plan` and compares; a cut model that does not run is a failed match, not an error."""
    return tried(model, graph, plan)[1]


def tried(model: nn.Module, graph: ModelGraph, plan: PrunePlan, *, parts: bool = False) -> tuple[nn.Module, Match]:
    """The draft of a cut model and how it does: run as it is before it is compared in float64, which may be slow.

    Of large images a part is compared; where outputs differ there, the program may hold a size, and whole ones tell.
    parts: where parts of images serve, whole ones are not run at all.
    """
    small, match = drafted(model, graph, plan) if parts else runs(model, graph, plan)
    if not match.ok:
        return small, match
    noise = noise_like(graph.example_inputs)
    try:
        if is_large(noise) and (on_a_part := compare(model, small, graph, plan, [resized(noise)])).ok:
            return small, on_a_part
        on_noise = compare(model, small, graph, plan, [noise])
        return small, on_noise if on_noise.tried else compare(model, small, graph, plan, [graph.example_inputs])
    except NaspruneError:
        raise
    except Exception as error:  # the reference runs what the user's code became, in ways that nobody foresaw
        return small, _raised(submodule(small, graph.scope), error)


def runs(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> tuple[nn.Module, Match]:
    """Builds `plan` and runs it on the example inputs, without a look at what it gives."""
    small, match = drafted(model, graph, plan)
    if not match.ok:
        return small, match
    part = submodule(small, graph.scope)
    try:
        with undisturbed(part):
            graph.example_inputs.clone().call(part)
    except NaspruneError:
        raise
    except Exception as error:  # the user's code may fail in any way once its sizes change
        return small, _raised(part, error)
    return small, match


def drafted(model: nn.Module, graph: ModelGraph, plan: PrunePlan) -> tuple[nn.Module, Match]:
    """Builds `plan` and does not run it."""
    try:
        return draft(model, graph, plan), Match(0.0, torch.float64)
    except NaspruneError:
        raise
    except Exception as error:  # surgery on the user's modules may fail in any way: that is what is being tried
        return nn.Identity(), _raised(nn.Identity(), error)


def _raised(part: nn.Module, error: Exception) -> Match:
    why = f"{type(error).__name__}: {first_line(error)}"
    return Match(float("inf"), torch.float64, why, innermost(part, error))


def bisect(names: Sequence[Name], reason: Callable[[Sequence[Name]], str]) -> dict[Name, str]:
    """Names that must go so that the rest passes. reason(names) is "" where a set passes.

    Halves are searched on their own; names that fail only together all go.
    """
    why = reason(names) if names else ""
    if not why:
        return {}
    if len(names) == 1:
        return {names[0]: f"a trial cut fails: {why}"}
    middle = len(names) // 2
    failed = {**bisect(names[:middle], reason), **bisect(names[middle:], reason)}
    rest = [name for name in names if name not in failed]
    if rest and (not failed or reason(rest)):
        failed |= dict.fromkeys(rest, f"a trial cut fails together with others: {why}")
    return failed
