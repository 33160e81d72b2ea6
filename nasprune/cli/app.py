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
SUPERNETS = "darts, nasbench201, file.py:factory or package.module:factory of your own supernet"
PLUGINS = typer.Option("--plugins", help="A folder of your own plugin files; may be given several times.")


def group_of(parent: typer.Typer, name: str, text: str) -> typer.Typer:
    """A new group of commands below `parent`."""
    made = typer.Typer(no_args_is_help=True, help=text)
    parent.add_typer(made, name=name)
    return made


supernets = group_of(app, "supernet", "Train a supernet, for `trim`.")

Model = Annotated[str, MODEL]
Weights = Annotated[str | None, WEIGHTS]
InputSize = Annotated[str | None, INPUT_SIZE]
Scope = Annotated[str | None, SCOPE]
Plugins = Annotated[list[Path] | None, PLUGINS]
SupernetData = Annotated[
    str | None, typer.Option("--data", help="digits, cifar10:DIR, imagefolder:DIR, module:factory.")
]
Device = Annotated[str, typer.Option("--device", help="For training: auto, cpu or cuda.")]


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
    polish: Annotated[
        bool, typer.Option("--polish", help="Then gradient steps towards the dense net, on images without labels.")
    ] = False,
    plugins: Plugins = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Glob of modules: cut only what belongs to these, and all below."),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Glob of modules: leave these whole, and all below.")
    ] = None,
    scope: Scope = None,
    trials: Annotated[int | None, typer.Option("--trials", help="How many decisions to evaluate.")] = None,
    time_limit: Annotated[
        float | None, typer.Option("--time-limit", help="Seconds after which no trial starts.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.  [default: runs/MODEL-BUDGET]")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="Where networks run: cpu, cuda, or auto for a GPU if any.")
    ] = "cpu",
    allow_chance: Annotated[
        bool, typer.Option("--allow-chance", help="Go on with a network that is no better on the labels than chance.")
    ] = False,
    allow_uncounted: Annotated[
        bool, typer.Option("--allow-uncounted", help="A share of FLOPs, even if they leave out much of the time.")
    ] = False,
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
            polish=polish,
            plugins=tuple(plugins or ()),
            include=tuple(include or ()),
            exclude=tuple(exclude or ()),
            scope=scope,
            trials=trials,
            time_limit=time_limit,
            seed=seed,
            out=out,
            device=device,
            allow_chance=allow_chance,
            allow_uncounted=allow_uncounted,
        )
    )


@app.command()
def finetune(
    run: Annotated[Path, typer.Argument(help="A folder that `nasprune search` wrote.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Labelled: digits, cifar10:DIR, imagefolder:DIR, module:factory.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 10,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Highest rate.  [default: 0.01, or 0.05 for an untrained net]")
    ] = None,
    optimizer: Annotated[str, typer.Option("--optimizer", help="sgd or adamw.")] = "sgd",
    batch_size: Annotated[int, typer.Option("--batch-size", help="Images a step.")] = 64,
    model: Annotated[
        str | None, typer.Option("--model", help="The dense model, where it is your own: file.py:factory.")
    ] = None,
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
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")] = 0,
    device: Device = "auto",
    precision: Annotated[str, typer.Option("--precision", help="32-true, or bf16-mixed, which is faster.")] = "32-true",
    plugins: Plugins = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for the result.  [default: RUN/finetuned]")] = None,
) -> None:
    """Train a network that a search saved; a broken training goes on when the command is repeated."""
    from nasprune.cli.finetune import FinetuneOptions
    from nasprune.cli.finetune import run as start

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


@app.command()
def trim(
    budget: Annotated[
        str | None, typer.Option("--budget", help="600MMACs, 600MFLOPs (as fvcore counts), 5MParams or 60%.")
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help=f"{SUPERNETS}.")] = None,
    supernet: Annotated[
        Path | None, typer.Option("--supernet", help="A folder from `supernet train`, or of an earlier trim.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="A safetensors or torch file.")] = None,
    data: SupernetData = None,
    epochs: Annotated[int | None, typer.Option("--epochs", help="Train the supernet first, for so many.")] = None,
    scorer: Annotated[str, typer.Option("--scorer", help="How operations are ranked.")] = "auto",
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="topk(k=3), threshold(share=0.1) or progressive(stages=[5, 3]).")
    ] = None,
    check: Annotated[
        int,
        typer.Option("--check", help="Train so many small networks, to see whether the scorer is right here."),
    ] = 0,
    tune: Annotated[int, typer.Option("--tune", help="Train what is left, for so many epochs.")] = 0,
    keep_max: Annotated[
        int | None, typer.Option("--keep-max", help="How many operations may stay in a choice.  [default: 3]")
    ] = None,
    count: Annotated[
        str, typer.Option("--count", help="What a budget without a unit is in: fvcore, macs or params.")
    ] = "fvcore",
    discretise: Annotated[
        bool, typer.Option("--discretise", help="Then pick one network; the budget is for that.")
    ] = False,
    rule: Annotated[
        str | None,
        typer.Option("--rule", help="Pick by architecture weights: darts, no_none, logit or alpha_beta."),
    ] = None,
    network: Annotated[
        str | None, typer.Option("--network", help="A size of the space for the network, such as imagenet.")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", help="Of the network.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Of the network.")] = None,
    supernet_channels: Annotated[int | None, typer.Option("--supernet-channels", help="Of a new supernet.")] = None,
    supernet_layers: Annotated[int | None, typer.Option("--supernet-layers", help="Of a new supernet.")] = None,
    prune_channels: Annotated[
        str | None,
        typer.Option("--prune-channels", help="Leave this share, such as 20%, to cutting channels; one budget in all."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")] = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.  [default: runs/SPACE-BUDGET]")
    ] = None,
) -> None:
    """Trim a supernet to the operations worth keeping within a budget, and pick a network from it if wanted."""
    from nasprune.cli.asked import TrimOptions
    from nasprune.cli.trim import run

    run(
        TrimOptions(
            space=space,
            supernet=supernet,
            weights=weights,
            budget=budget,
            count=count,
            scorer=scorer,
            check=check,
            tune=tune,
            schedule=schedule,
            keep_max=keep_max,
            discretise=discretise,
            rule=rule,
            network=network,
            channels=channels,
            layers=layers,
            supernet_channels=supernet_channels,
            supernet_layers=supernet_layers,
            data=data,
            epochs=epochs,
            prune_channels=prune_channels,
            seed=seed,
            device=device,
            plugins=tuple(plugins or ()),
            out=out,
        )
    )


@supernets.callback()
def supernet_group() -> None:
    """Keeps `train` a command of its own, though it is the only one."""


@supernets.command()
def train(
    space: Annotated[str, typer.Option("--space", help=f"{SUPERNETS}.")],
    data: Annotated[str, typer.Option("--data", help="digits, cifar10:DIR, imagefolder:DIR, module:factory.")],
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 50,
    warmup_epochs: Annotated[
        int, typer.Option("--warmup-epochs", help="The first ones, in which the architecture weights rest.")
    ] = 0,
    method: Annotated[
        str, typer.Option("--method", help="bilevel, or paths: one random operation of each choice a step.")
    ] = "bilevel",
    channels: Annotated[int | None, typer.Option("--channels", help="Of the first cells.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Number of cells, as the space counts.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")] = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.  [default: runs/supernet-SPACE]")
    ] = None,
) -> None:
    """Train a supernet: its weights on half of the images, its architecture weights on the other half."""
    from nasprune.cli.supernet import TrainOptions, run

    run(
        TrainOptions(
            space=space,
            data=data,
            channels=channels,
            layers=layers,
            epochs=epochs,
            warmup_epochs=warmup_epochs,
            method=method,
            seed=seed,
            device=device,
            plugins=tuple(plugins or ()),
            out=out,
        )
    )


@app.command("list")
def list_plugins(
    plugins: Plugins = None,
    check: Annotated[bool, typer.Option("--check", help="Import every one and say which fail.")] = False,
) -> None:
    """List criteria, controllers, evaluators, scorers of operations, op rules and spaces, and where each comes from."""
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
