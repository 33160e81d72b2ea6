"""`nasprune.save` and `nasprune.load`: a run folder with a plan, weights and a report. Nothing is pickled.

A saved plan is replayed on the user's own dense model, so that the small network is made of the user's classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.arguments import path, refused
from nasprune.common.fields import LARGEST
from nasprune.common.files import check_places, content_of, write_all
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.locks import held
from nasprune.common.seals import check_bound, digest_of_bytes
from nasprune.common.states import lost_in_files, state_tensors
from nasprune.cut.plan import PrunePlan, plan_fields
from nasprune.cut.surgery import build
from nasprune.errors import InputError
from nasprune.graph.capture import submodule
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import signature
from nasprune.models.weights import load_weights, to_bytes
from nasprune.registry import Plugins
from nasprune.run.masks import MASKS, check_zeros, plan_in
from nasprune.run.names import op_rules
from nasprune.run.page import html
from nasprune.run.recorded import settings_in
from nasprune.run.report import SearchReport
from nasprune.run.reporting import markdown
from nasprune.run.trace import trace

PLAN, WEIGHTS, REPORT, PAGE, HTML = "plan.json", "model.safetensors", "report.json", "report.md", "report.html"
FILES = (PLAN, WEIGHTS, REPORT, PAGE, HTML, MASKS)
UNASKED = 2**24
"""Numbers in the inputs of a plan that `load` traces a model with by itself: an image of 2,300 x 2,300, in colour."""
THEN = "give a folder that nasprune.save wrote"
KEEPS_ZEROS = "fine-tune the result itself, nasprune.finetune(result, ...), which keeps them zero"


class Saveable(Protocol):
    """What a search returns."""

    @property
    def model(self) -> nn.Module: ...

    @property
    def plan(self) -> PrunePlan: ...

    @property
    def report(self) -> SearchReport: ...


def save(result: Saveable, folder: str | Path, *, model: nn.Module | None = None) -> None:
    """Writes `plan.json`, `model.safetensors`, `report.json`, `report.md` and `report.html` into `folder`, or none.

    A plan with zeros inside of weights has `masks.safetensors` beside it.

    Args:
        result: what `nasprune.search` returned.
        folder: made where it does not exist; may hold an earlier save of the same search.
        model: the small network with other weights, such as a fine-tuned one; else `result.model`. Of another network
            the first difference is named.

    Raises:
        InputError: an argument is something else, the folder holds another run, cannot be written, or the disk is full.
    """
    if not (hasattr(result, "plan") and hasattr(result, "report") and hasattr(result, "model")):
        raise refused(
            "result",
            "what `nasprune.search` returned",
            result,
            "write nasprune.save(result, folder), with a fine-tuned network nasprune.save(result, folder, model=tuned)",
        )
    folder = path("folder", folder, "write nasprune.save(result, 'runs/mine')")
    network, masks = _same_network(result.model, model), result.plan.masks
    for note in lost_in_files(result.model, network):
        logging.getLogger(__name__).warning(note)
    check_zeros(masks, submodule(network, result.plan.scope), KEEPS_ZEROS)
    weights, zeros = to_bytes(state_tensors(network)), to_bytes(masks) if masks else None
    with held(folder):
        check_folder(folder, result.report.settings)
        write_all(
            folder,
            {  # the report first: it tells a later save that the folder is its own
                REPORT: result.report.to_json().encode(),
                HTML: _html(result, folder).encode(errors="backslashreplace"),
                PAGE: markdown(result.report, folder=str(folder)).encode(errors="backslashreplace"),
                WEIGHTS: weights,
                **({MASKS: zeros} if zeros is not None else {}),
                PLAN: result.plan.to_json(
                    weights=digest_of_bytes(weights),
                    masks=digest_of_bytes(zeros) if zeros is not None else None,
                ).encode(),
            },
        )
        if zeros is None:
            (folder / MASKS).unlink(missing_ok=True)  # of an earlier save


@torch.inference_mode(mode=False)
def load(
    folder: str | Path,
    model: nn.Module,
    *,
    example_inputs: ExampleInputs | None = None,
    plugins: Plugins = None,
) -> nn.Module:
    """The small network saved in `folder`: the plan replayed on a copy of the dense `model`, then the saved weights.

    Args:
        folder: what `nasprune.save` or `nasprune search` wrote.
        model: the dense network that the search started from, with any weights; left as it is.
        example_inputs: to trace it with, as for `nasprune.trace`; else noise of the shapes that the plan recorded.
        plugins: folders with op rules that the search was given.

    Returns:
        A new network in eval mode.

    Raises:
        InputError: a file is missing or damaged, or the weights are of another save; names file and field.
        PlanError: the plan is damaged, or `model` is not the one it was made for; the first difference is named.
    """
    return loaded(folder, model, example_inputs=example_inputs, plugins=plugins).model


@dataclass(frozen=True)
class Loaded:
    """A saved network with its plan and the graph of the dense one, which say which channels it has of that."""

    model: nn.Module
    plan: PrunePlan
    graph: ModelGraph


def loaded(
    folder: str | Path, model: nn.Module, *, example_inputs: ExampleInputs | None = None, plugins: Plugins = None
) -> Loaded:
    """What `load` gives, and what it is of; arguments and errors are the same."""
    folder = path("folder", folder, "write nasprune.load('runs/mine', model=the_dense_model)")
    model = accepted(model)
    record = plan_fields(content_of(folder / PLAN, "the plan", THEN, most=LARGEST), repr(str(folder / PLAN)))
    plan = plan_in(folder, record, THEN)
    plan.check_signature(signature(submodule(model, plan.scope)))
    check_bound(folder / WEIGHTS, record["weights"], "weights", THEN)
    if example_inputs is None and not plan.inputs:
        raise InputError(f"the plan in {str(folder)!r} records no inputs to trace the model with; pass example_inputs=")
    if example_inputs is None and plan.inputs.elements > UNASKED:
        raise InputError(
            f"the plan in {str(folder)!r} records inputs of {plan.inputs.elements:,} numbers, and no more than "
            f"{UNASKED:,} are made up unasked, as a network may run on them for minutes; pass example_inputs= if they "
            "are meant"
        )
    graph = _graph(plan, model, example_inputs, plugins)
    small = build(model, graph, plan).eval()
    load_weights(small, folder / WEIGHTS)
    check_zeros(plan.masks, submodule(small, plan.scope), "save the run again")
    return Loaded(small, plan, graph)


def read_plan(folder: Path) -> PrunePlan:
    """The plan of a run, with its masks. Raises InputError where there is none, or it is damaged."""
    path = folder / PLAN
    return plan_in(folder, plan_fields(content_of(path, "the plan", THEN, most=LARGEST), repr(str(path))), THEN)


def read_report(folder: str | Path) -> SearchReport:
    """The report of a run, which `nasprune show` prints.

    Raises:
        InputError: there is none in the folder, or it is damaged.
    """
    file = path("folder", folder, "write for example folder='runs/mine'") / REPORT
    return SearchReport.from_json(content_of(file, "the report", THEN, most=LARGEST), repr(str(file)))


def replayed(
    plan: PrunePlan, model: nn.Module, example_inputs: ExampleInputs | None = None, *, plugins: Plugins = None
) -> nn.Module:
    """A plan carried out on a copy of the dense `model`, with its weights, in eval mode; arguments as of `load`."""
    return build(model, _graph(plan, model, example_inputs, plugins), plan).eval()


def _graph(plan: PrunePlan, model: nn.Module, example_inputs: ExampleInputs | None, plugins: Plugins) -> ModelGraph:
    """What the plan is of: the dense model's graph, traced anew."""
    part = submodule(model, plan.scope)
    inputs = Inputs.of(example_inputs, part) if example_inputs is not None else plan.inputs.noise()
    return replace(trace(part, inputs, rules=op_rules(plugins)), scope=plan.scope)


def _html(result: Saveable, folder: Path) -> str:
    """The page; with charts of trials and harms where the result knows of any."""
    trials, harms = getattr(result, "trials", ()), getattr(result, "harms", None)
    return html(result.report, folder=str(folder), trials=trials, harms=harms)


def _same_network(searched: nn.Module, given: nn.Module | None) -> nn.Module:
    """The network to save. Raises InputError where `given` is not the one that the search found, with other weights."""
    if given is None:
        return searched
    given = accepted(given)
    first, second = signature(searched), signature(given)
    for name in (*first, *second):
        if first.get(name) != second.get(name):
            shapes = [f"of shape {list(held[name])}" if name in held else "missing" for held in (first, second)]
            raise InputError(
                f"`model` must be the network that the search found, with other weights: its {name!r} is {shapes[1]}, "
                f"in result.model {shapes[0]}; give what nasprune.finetune(result.model, ...) returned"
            )
    return given


def check_folder(folder: Path, settings: Mapping[str, str]) -> None:
    """Raises InputError where `folder` is no folder, or holds files that are not of a run with the given settings."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; choose a folder")
    check_places(folder, FILES)
    there = _settings_in(folder)
    if there is None:
        for name in FILES:
            if (folder / name).exists():
                raise InputError(
                    f"{str(folder)!r} holds a file {name!r} that no search is known to have written; choose another "
                    "folder, or move it away"
                )
        return
    for name in settings:
        if name in there and there[name] != settings[name]:
            raise InputError(
                f"{str(folder)!r} holds another run ({name} was {there[name]!r}, now {settings[name]!r}); "
                "choose another folder, or delete that one"
            )


def _settings_in(folder: Path) -> Mapping[str, str] | None:
    path = folder / REPORT
    if not path.exists():
        return settings_in(folder)
    content = content_of(path, "the report", "choose another folder, or delete that one", most=LARGEST)
    return SearchReport.from_json(content, repr(str(path))).settings
