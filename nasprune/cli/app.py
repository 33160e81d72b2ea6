"""The commands and their options. What they do is imported when they run, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="nasprune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Architecture search for structured pruning: a budget in, a smaller proven network out.",
)

MODEL = typer.Option(
    "--model", help="torchvision:NAME, timm:NAME, file.py:factory or package.module:factory.", show_default=True
)
WEIGHTS = typer.Option("--weights", help="A safetensors or torch file, or `default` for the library's own.")
INPUT_SIZE = typer.Option("--input-size", help="224, 160x192, or in full 3x224x224; else what the model says.")
SCOPE = typer.Option("--scope", help="Cut only this submodule, such as `backbone` of a detector.")
PLUGINS = typer.Option("--plugins", help="A folder of your own plugin files; may be given several times.")

Model = Annotated[str, MODEL]
Weights = Annotated[str | None, WEIGHTS]
InputSize = Annotated[str | None, INPUT_SIZE]
Scope = Annotated[str | None, SCOPE]
Plugins = Annotated[list[Path] | None, PLUGINS]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        from nasprune import __version__

        typer.echo(__version__)


@app.command()
def search(
    budget: Annotated[
        str | None, typer.Option("--budget", help="2GFLOPs, 300MMACs, 60%, 5MParams, or several: 2GFLOPs,20MParams.")
    ] = None,
    model: Model = "torchvision:resnet50",
    weights: Weights = None,
    data: Annotated[
        str | None,
        typer.Option("--data", help="digits, cifar10:DIR, imagefolder:DIR, module:factory; none is data-free."),
    ] = None,
    input_size: InputSize = None,
    criterion: Annotated[str, typer.Option("--criterion", help="How channels are ranked within a group.")] = "auto",
    controller: Annotated[str, typer.Option("--controller", help="How decisions are proposed.")] = "auto",
    evaluator: Annotated[
        str, typer.Option("--evaluator", help="How decisions are scored; your own is file.py:function.")
    ] = "auto",
    space: Annotated[str, typer.Option("--space", help="What may be decided.")] = "auto",
    reconstruct: Annotated[
        str, typer.Option("--reconstruct", help="Closed-form refitting on calibration data: lstsq, obs or none.")
    ] = "auto",
    plugins: Plugins = None,
    include: Annotated[list[str] | None, typer.Option("--include", help="Only groups and blocks like this.")] = None,
    exclude: Annotated[list[str] | None, typer.Option("--exclude", help="No groups and blocks like this.")] = None,
    scope: Scope = None,
    trials: Annotated[int | None, typer.Option("--trials", help="How many decisions to evaluate.")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds after which no trial starts.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.  [default: runs/MODEL-BUDGET]")
    ] = None,
) -> None:
    """Find, build, prove and save the best smaller network within a budget."""
    from nasprune.cli.search import SearchOptions, run

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
            plugins=tuple(plugins or ()),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            scope=scope,
            trials=trials,
            time_limit=time_limit,
            seed=seed,
            out=out,
        )
    )


@app.command()
def inspect(
    model: Model = "torchvision:resnet50",
    weights: Weights = None,
    input_size: InputSize = None,
    scope: Scope = None,
    plugins: Plugins = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Cut half of everything once and prove it.")] = False,
) -> None:
    """Show what can be pruned: channel groups and blocks, their share of the cost, and why the rest is frozen."""
    from nasprune.cli.inspect import run

    raise typer.Exit(run(model, weights, input_size, scope, tuple(plugins or ()), as_json=as_json, verify=verify))


@app.command("list")
def list_plugins(
    plugins: Plugins = None,
    check: Annotated[bool, typer.Option("--check", help="Import every one and say which fail.")] = False,
) -> None:
    """List criteria, controllers, evaluators, op rules and search spaces, and where each comes from."""
    from nasprune.cli.listing import run

    raise typer.Exit(run(tuple(plugins or ()), check=check))


@app.command()
def demo(
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same numbers.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the result.  [default: runs/demo]")] = None,
) -> None:
    """Train a small net on real digits, halve its FLOPs, fine-tune it, and compare."""
    from nasprune.cli.demo import run

    run(seed, out)
