"""Commands about supernets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nasprune.cli.options import (
    SUPERNETS,
    AsJson,
    Config,
    Device,
    ImageSide,
    Plugins,
    Quiet,
    Seed,
    SupernetData,
    Verbose,
    app,
    group_of,
)
from nasprune.cli.screen import speak

supernets = group_of(app, "supernet", "Train a supernet, for `trim`.")


@app.command(short_help="Trim a supernet to the operations worth keeping within a budget.")
def trim(
    budget: Annotated[
        str | None, typer.Option("--budget", help="600MMACs, 600MFLOPs (as fvcore counts), 5MParams, 8ms or 60%.")
    ] = None,
    space: Annotated[str | None, typer.Option("--space", help=f"{SUPERNETS}.")] = None,
    supernet: Annotated[
        Path | None, typer.Option("--supernet", help="A folder from `supernet train`, or of an earlier trim.")
    ] = None,
    weights: Annotated[Path | None, typer.Option("--weights", help="A safetensors or torch file.")] = None,
    data: SupernetData = None,
    input_size: ImageSide = None,
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
        int | None, typer.Option("--keep-max", help="How many operations may stay in a choice.", show_default="3")
    ] = None,
    count: Annotated[
        str, typer.Option("--count", help="What a budget without a unit is in: fvcore, macs, params or latency.")
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
    seed: Seed = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.", show_default="runs/SPACE-BUDGET")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Trim a supernet to the operations worth keeping within a budget, and pick a network from it if wanted."""
    from nasprune.cli.asked import TrimOptions
    from nasprune.cli.trim import run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
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
            input_size=input_size,
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
    data: Annotated[
        str,
        typer.Option("--data", help="digits, pointclouds, cifar10:DIR, mnist:DIR, imagefolder:DIR, module:factory."),
    ],
    input_size: ImageSide = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training images.")] = 50,
    warmup_epochs: Annotated[
        int, typer.Option("--warmup-epochs", help="The first ones, in which the architecture weights rest.")
    ] = 0,
    method: Annotated[
        str, typer.Option("--method", help="bilevel, or paths: one random operation of each choice a step.")
    ] = "bilevel",
    channels: Annotated[int | None, typer.Option("--channels", help="Of the first cells.")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Number of cells, as the space counts.")] = None,
    seed: Seed = 0,
    device: Device = "auto",
    plugins: Plugins = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the result.", show_default="runs/supernet-SPACE")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a supernet: its weights on half of the images, its architecture weights on the other half."""
    from nasprune.cli.supernet import TrainOptions, run

    speak(as_json=as_json, quiet=quiet, verbose=verbose)
    run(
        TrainOptions(
            space=space,
            data=data,
            input_size=input_size,
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
