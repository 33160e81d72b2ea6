"""`nasprune.search`: a budget in, a smaller proven network out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from nasprune.common.accepted import accepted
from nasprune.common.arguments import names, path
from nasprune.common.inputs import ExampleInputs
from nasprune.common.locks import held
from nasprune.common.memory import bytes_of
from nasprune.common.phases import Phases, PhaseStep
from nasprune.common.randomness import own_randomness
from nasprune.cost.budget import Budget
from nasprune.cost.left_out import left_out
from nasprune.cost.uncounted import check_counted
from nasprune.cut.rebuild import rebuilt
from nasprune.data.load import DataSource
from nasprune.graph.capture import submodule
from nasprune.refit.reconstruct import MEMORY
from nasprune.registry import Plugins
from nasprune.run.checks import check_callbacks, check_latency, options_of, several
from nasprune.run.compared import compared
from nasprune.run.cutting import cut
from nasprune.run.exploration import Progress
from nasprune.run.journal import Journal
from nasprune.run.layer_times import layer_times
from nasprune.run.logs import logged
from nasprune.run.methods import Names
from nasprune.run.names import op_rules
from nasprune.run.polishing import check_polish, polished
from nasprune.run.request import resolved
from nasprune.run.result import SearchResult, result_of
from nasprune.run.settings import Options
from nasprune.run.sharing import Shared
from nasprune.run.stopwatch import Stopwatch
from nasprune.run.trace import trace
from nasprune.train.polish import PolishStep


@torch.inference_mode(mode=False)
def search(
    model: nn.Module,
    example_inputs: ExampleInputs,
    budget: str | Budget = "2GFLOPs",
    *,
    data: DataSource | None = None,
    criterion: str = "auto",
    controller: str = "auto",
    evaluator: str | Callable[[nn.Module], float] = "auto",
    space: str = "auto",
    reconstruct: str = "auto",
    sparsifier: str = "auto",
    polish: bool | None = None,
    seed: int = 0,
    trials: int | None = None,
    time_limit: float | None = None,
    out: str | Path | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    multiple_of: int | str | Sequence[int | str] = (),
    plugins: Plugins = None,
    scope: str | None = None,
    space_options: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    on_polish: Callable[[PolishStep], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    settings: Mapping[str, str] | None = None,
    allow_uncounted: bool = False,
    allow_chance: bool = False,
    memory: str | int = MEMORY,
    on_phase: Callable[[PhaseStep], None] | None = None,
    batch: int = 1,
    threads: int | None = None,
    runtime: str = "eager",
    log: str | Sequence[str] | None = None,
    shared: Shared | None = None,
) -> SearchResult:
    """Finds the best smaller network within a budget, builds it, and proves that the cut is right.

    Args:
        model: any module that `nasprune.trace` takes; left as it is, with its mode and all random generators.
        example_inputs: what the model is called with, batch first: a tensor, a tuple of positional arguments, a dict of
            keyword arguments, or a `nasprune.Inputs` with both. Numbers, `None`, lists and dicts may stand among them.
            Of a batch only the first item is used.
        budget: "2GFLOPs", "60%", "5MParams", "8ms", "60% latency", "20%NNZ" (numbers of all parameters that are not
            zero), "25%NNZFLOPs" (multiply-adds with such weights), or several joined by commas.
        data: for evaluators that need it: a name, a `DataSplits`, `Dataset`, `DataLoader` or (inputs, labels) pair.
        criterion: name of a plugin, with options where wanted: "lp(p=1, reduce=max, normalise=layer)".
        controller, evaluator, space: names of plugins; the evaluator may be your function(model) -> number, higher is
            better, or its name: "file.py:function".
        reconstruct: "lstsq", "obs" or "none": closed-form refitting on calibration data; see the room `refit`.
            For these five, "auto" with data is the criterion `obs`, the controller `auto` (the decision of
            `sensitivity`, then evolution around it), the evaluator `accuracy`, the space `widths` and `lstsq`; without
            data `l2`, `evolution`, `importance`, `widths`, `none`.
        sparsifier: name of a plugin that says which weights become zero, where the budget limits NNZ; `space` is then
            "weights", "kernels", or both as in "widths+weights(pattern='2:4')".
        polish: whether gradient steps on images without labels bring the refitted network nearer to the dense one, as
            `nasprune.polish` does; needs data. By default they do where `time_limit` leaves time for them.
        seed: fixes the result.
        trials: how many decisions are evaluated; by default 1 for the controller `auto`, and for others as many as
            `time_limit` allows, else 100 with an evaluator that needs data, and 1,000 with one that does not.
        time_limit: seconds after which no new trial starts. With the controller `auto`, data, and neither `trials` nor
            an evaluator of your own, more trials gain nothing (docs/results.md): what is left of these seconds after
            the refit goes to polishing, unless `polish` is False, and then to trials.
        out: folder for `trials.jsonl`, which this process alone may write to meanwhile; a search with the same settings
            goes on where the file ends.
        include, exclude: globs on paths of groups, blocks and modules, one or several: only what is cut with these and
            what lies below them, and nothing that is cut with those.
        multiple_of: a number that all kept widths are multiples of, or refused by name; or "GLOB=NUMBER", or several.
        plugins: folders of plugin files.
        scope: the submodule to cut, for models that cannot be captured whole.
        space_options: further options of the search space, such as `{"divisor": 16}`.
        on_progress: called after every trial. on_polish: called after every check while polishing.
        should_stop: asked before every trial but the first; where it says so, the best so far is the result.
        settings: further names and values that belong to this run, kept in the report and the record of trials.
        allow_chance: go on where a trained classifier is no better on the labels than guesses would be.
        memory: "2GiB", or bytes, of which a half is for activations that wait while layers are refitted; the others
            wait in temporary files, and the result is the same.
        batch, threads, runtime: items that run at once, threads of the CPU, and what runs networks ("eager", "compile"
            or "onnxruntime", on a CPU), where latency is measured: for a budget of it, and for the report.
        on_phase: called when a phase starts, such as "refitting", and after each of its steps.
        log: "csv:DIR", "tensorboard:DIR", "mlflow" or "mlflow:URI", "wandb" or "wandb:PROJECT", or several: where each
            trial is written to.
        shared: what searches of the same model that differ in the budget alone hand on; `nasprune.sweep` gives it.
        allow_uncounted: take a share of the FLOPs also where operators that nobody can count take much of the time.

    Raises:
        BudgetError: the budget does not parse or cannot be met, or is a share of FLOPs that leave out more than 5 % of
        the measured time. InputError: another argument cannot be used, or `out`
        holds another run. TraceError: the model cannot be captured. PluginError: a plugin fails.
        VerificationError: the cut network is not what it should be.
    """
    started = time.monotonic()
    phases = Phases(on_phase)
    check_polish(polish, has_data=data is not None)
    check_latency(batch, threads, runtime)
    check_callbacks(on_progress, should_stop, settings or {})
    folder = path("out", out, "write for example out='runs/mine'") if out is not None else None
    request = resolved(
        accepted(model),
        example_inputs,
        budget,
        data,
        Names(criterion, controller, evaluator, space, reconstruct, sparsifier),
        Options(
            seed=seed,
            trials=trials,
            time_limit=time_limit,
            plugins=plugins,
            scope=scope,
            space={
                **options_of(space_options),
                "include": names("include", include),
                "exclude": names("exclude", exclude),
                **({"multiple_of": several(multiple_of)} if multiple_of != () else {}),
            },
            settings=settings or {},
            should_stop=should_stop,
            polish=polish,
            allow_chance=allow_chance,
            memory=bytes_of(memory),
            shared=shared or Shared(),
            out=folder,
            batch=batch,
            threads=threads,
            runtime=runtime,
        ),
        on_progress,
        phases,
    )
    here = held(folder) if folder is not None else nullcontext()
    with here, own_randomness(request.model), logged(log, on_progress) as told:
        request = replace(request, on_progress=told)
        once = request.options.shared.once
        with phases.phase("tracing"):
            graph = once("graph", lambda: trace(request.original, request.inputs, scope, rules=op_rules(plugins)))
        stopwatch = Stopwatch.of(request, graph)
        uncounted = once("uncounted", lambda: left_out(submodule(request.model, scope), graph))
        if not allow_uncounted:
            check_counted(request.budget, uncounted)
        done = cut(request, graph, lambda: Journal(folder, request.settings))
        found, fitted, plan = done.found, done.model, done.found.proven.plan
        both = [submodule(net, scope) for net in (request.model, fitted)]
        latency, said = (found.latency, []) if found.latency else stopwatch.told(request.model, fitted)
        layers = layer_times(both[0], both[1], graph.example_inputs)
        recovered = polished(request, found.graph, fitted, plan, started, on_polish)
        with phases.phase("proving"):
            small = rebuilt(request.original, recovered.model, found.graph, plan)
        rungs = compared(request, found.graph, plan, fitted, recovered.model)
    done = replace(done, notes=(*done.notes, *recovered.notes, *said))
    result = result_of(request, done, small, uncounted, latency, layers, time.monotonic() - started)
    return result.measured({**rungs, **(recovered.measured or {})})
