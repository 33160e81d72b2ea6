"""Commands that look for a smaller network, and train it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasprune.cli.options import (
    AsJson,
    Config,
    DenseModel,
    Device,
    InputSize,
    Log,
    Model,
    Plugins,
    Quiet,
    Scope,
    Seed,
    Verbose,
    Weights,
    app,
)
from nasprune.cli.screen import speak


@app.command()
def search(
    budget: Annotated[
        str | None, typer.Option("--budget", help="2GFLOPs, 60%, 5MParams, 8ms, 20%NNZ, or several: 2GFLOPs,20MParams.")
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option("--sweep", help="Several budgets, such as 70%,50%,35%: a result for each, in one folder."),
    ] = None,
    model: Model = "torchvision:resnet50",
    weights: Weights = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, module:factory; none is data-free.",
        ),
    ] = None,
    input_size: InputSize = None,
    criterion: Annotated[str, typer.Option("--criterion", help="How channels are ranked within a group.")] = "auto",
    controller: Annotated[str, typer.Option("--controller", help="How decisions are proposed.")] = "auto",
    evaluator: Annotated[
        str, typer.Option("--evaluator", help="How decisions are scored; your own is file.py:function.")
    ] = "auto",
    space: Annotated[
        str, typer.Option("--space", help="What may be decided: widths, weights, kernels, widths+weights.")
    ] = "auto",
    reconstruct: Annotated[
        str, typer.Option("--reconstruct", help="Closed-form refitting on calibration data: lstsq, obs or none.")
    ] = "auto",
    sparsifier: Annotated[
        str,
        typer.Option("--sparsifier", help="Which weights become zero: obs, obd, nettrim, magnitude."),
    ] = "auto",
    polish: Annotated[
        bool | None,
        typer.Option(
            "--polish/--no-polish",
            help="Then gradient steps towards the dense net, on images without labels.",
            show_default="where --time-limit leaves time for them",
        ),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", help="Instead of searching, train so that it can be cut; with --finetune."),
    ] = None,
    finetune: Annotated[
        int | None, typer.Option("--finetune", help="Epochs of training on labels, of what was found or by --strategy.")
    ] = None,
    log: Log = None,
    plugins: Plugins = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Path or glob of modules: cut only what belongs to these, and all below."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Path or glob of modules: leave these whole, and all below.")
    ] = None,
    multiple_of: Annotated[
        list[str] | None,
        typer.Option("--multiple-of", help="Widths are multiples of 8, or 'layer4.*=16'; several times."),
    ] = None,
    scope: Scope = None,
    trials: Annotated[int | None, typer.Option("--trials", help="How many decisions to evaluate.")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds after which no trial and no step of polishing starts.")
    ] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.", show_default="runs/MODEL-BUDGET")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="Where networks run: cpu, cuda, or auto for a GPU if any.")
    ] = "cpu",
    memory: Annotated[
        str,
        typer.Option("--memory", help="A half of it is for activations that wait; the others wait in temporary files."),
    ] = "2GiB",
    batch: Annotated[int, typer.Option("--batch", help="Items that run at once where latency is measured.")] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads of the CPU where latency is measured.")
    ] = None,
    runtime: Annotated[
        str, typer.Option("--runtime", help="By what latency is measured: eager, compile or onnxruntime.")
    ] = "eager",
    allow_chance: Annotated[
        bool, typer.Option("--allow-chance", help="Go on with a network that is no better on the labels than chance.")
    ] = False,
    allow_uncounted: Annotated[
        bool, typer.Option("--allow-uncounted", help="A share of FLOPs, even if they leave out much of the time.")
    ] = False,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Find, build, prove and save a smaller network within a budget."""
    from nasprune.cli.search import SearchOptions, run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    if sweep is not None:
        from nasprune.cli.sweep import run
    if strategy is not None or finetune is not None:
        from nasprune.cli.training import run
    run(
        SearchOptions(
            budget=budget,
            model=model,
            weights=weights,
            data=data,
            input_size=input_size,
            criterion=criterion,
            controller=controller,
            evaluator=evaluator,
            space=space,
            reconstruct=reconstruct,
            sparsifier=sparsifier,
            polish=polish,
            plugins=tuple(plugins or ()),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            multiple_of=tuple(multiple_of or ()),
            scope=scope,
            trials=trials,
            time_limit=time_limit,
            seed=seed,
            out=out,
            device=device,
            memory=memory,
            sweep=sweep,
            strategy=strategy,
            finetune=finetune,
            log=tuple(log or ()),
            batch=batch,
            threads=threads,
            runtime=runtime,
            allow_chance=allow_chance,
            allow_uncounted=allow_uncounted,
        )
    )


@app.command(short_help="Train a network that a search saved.")
def finetune(
    run: Annotated[Path, typer.Argument(help="A folder that `nasprune search` wrote.")],
    data: Annotated[
        str | None,
        typer.Option(
            "--data", help="Labelled: digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, module:factory."
        ),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 10,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Highest rate.", show_default="0.01, or 0.05 for an untrained net")
    ] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", help="sgd or adamw.")] = "sgd",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images a step, of each process.")] = 64,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Batches whose gradients make one step.")] = 1,
    mix: Annotated[str, typer.Option("--mix", help="Mix training images: mixup, cutmix, both or none.")] = "none",
    log: Log = None,
    model: DenseModel = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Of the dense net, which then teaches; a file, or `default`.")
    ] = None,
    teacher: Annotated[bool, typer.Option("--teacher/--no-teacher", help="Whether the dense net teaches.")] = True,
    augment: Annotated[
        bool, typer.Option("--augment/--no-augment", help="Mirror and shift training images at random.")
    ] = False,
    choose: Annotated[
        str, typer.Option("--choose", help="The epoch that counts: last, or best on validation.")
    ] = "last",
    input_size: InputSize = None,
    seed: Seed = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="32-true, or bf16-mixed, which is faster.")] = "32-true",
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.", show_default="RUN/finetuned")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network that a search saved; a broken training goes on when the command is repeated."""
    from nasprune.cli.finetune import FinetuneOptions
    from nasprune.cli.finetune import run as start

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    start(
        FinetuneOptions(
            run=run,
            data=data,
            model=model,
            weights=weights,
            epochs=epochs,
            lr=lr,
            optimizer=optimizer,  # type: ignore[arg-type]
            batch_size=batch_size,
            choose=choose,  # type: ignore[arg-type]
            accumulate=accumulate,
            mix=mix,  # type: ignore[arg-type]
            log=tuple(log or ()),
            augment=augment,
            teacher=teacher,
            input_size=input_size,
            seed=seed,
            device=device,
            precision=precision,
            plugins=tuple(plugins or ()),
            out=out,
        )
    )


@app.command(short_help="Show what can be pruned, and why the rest cannot.")
def inspect(
    model: Model = "torchvision:resnet50",
    weights: Weights = None,
    input_size: InputSize = None,
    scope: Scope = None,
    plugins: Plugins = None,
    verify: Annotated[bool, typer.Option("--verify", help="Cut half of everything once and prove it.")] = False,
    html: Annotated[Path | None, typer.Option("--html", help="Draw the graph to this file, for a browser.")] = None,
    dot: Annotated[Path | None, typer.Option("--dot", help="Draw the graph to this file, for Graphviz.")] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show what can be pruned: channel groups and blocks, their share of the cost, and why the rest is frozen."""
    from nasprune.cli.inspect import run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    raise typer.Exit(run(model, weights, input_size, scope, tuple(plugins or ()), verify=verify, html=html, dot=dot))


@app.command(short_help="Train a small net on real digits, halve its FLOPs, and compare.")
def demo(
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the result.", show_default="runs/demo")] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a small net on real digits, halve its FLOPs, fine-tune it, and compare."""
    from nasprune.cli.demo import run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    run(seed, out)
