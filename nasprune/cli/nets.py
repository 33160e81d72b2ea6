"""Supernets by name: a space from the registry, or a factory of the user's own; and how training them is shown."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nasprune.cli.screen import left, say, stderr
from nasprune.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from nasprune.data import DataSplits
    from nasprune.supernet.genotype.spaces import Size, SupernetSpace
    from nasprune.supernet.supernet import Supernet
    from nasprune.train.progress import Epoch

EXAMPLES = "darts, nasbench201, file.py:factory or package.module:factory"
LARGE = 96
"""Images above this many pixels get the stem for large images."""
NOTES = 5
"""On what was found, at most, that are shown."""
_PLAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Origin:
    """Where a supernet comes from.

    space: `None` where `factory`, a function without arguments, makes the net, or a `nasprune.Supernet` that also says
    which decisions are tied and where its architecture weights are.
    """

    spec: str
    space: SupernetSpace | None
    factory: Callable[[], object] | None

    @classmethod
    def find(cls, spec: str, plugins: tuple[Path, ...]) -> Origin:
        """Raises InputError or UnknownNameError where nothing is called so; nothing is built."""
        from nasprune.common.factories import call_factory, find_factory
        from nasprune.supernet.genotype.naming import supernet_space
        from nasprune.supernet.genotype.spaces import SupernetSpace

        if ":" not in spec.partition("(")[0]:
            return cls(spec, supernet_space(spec, plugins), None)
        factory = find_factory(spec, what="supernet")
        if isinstance(factory, type) and issubclass(factory, SupernetSpace):
            return cls(spec, call_factory(spec, what="space of supernets"), None)
        return cls(spec, None, factory)

    def size(self, data: DataSplits | None, channels: int | None, layers: int | None) -> Size | None:
        """Of the supernet: the space's own for searches, fitted to the data; `None` without a space.

        Raises:
            InputError: sizes are given for a net that a factory makes, or the data has no square images.
        """
        if self.space is None:
            if channels is not None or layers is not None:
                raise InputError(f"the supernet from {self.spec!r} has its own size; leave out the channels and layers")
            return None
        return resized(fitted(self.space.sizes["search"], data), channels, layers)

    def build(self, size: Size | None, data: DataSplits | None, seed: int) -> Supernet:
        """The untrained supernet with its choices found; the seed fixes its values.

        Raises:
            InputError: the factory fails, the size of its inputs is unknown, or no choices are found.
        """
        import torch

        from nasprune.supernet.supernet import Supernet

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if self.space is not None and size is not None:
                net: nn.Module = self.space.supernet(size)
                shape: tuple[int, ...] = size.input_shape[1:]
            else:
                made = self.made(seed)
                if isinstance(made, Supernet):
                    return made
                net, shape = made, self._shape(made, data)
            example = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), device="cpu")
            return Supernet.from_model(net, example, space=self.space)

    def images(self, source: str | None, seed: int, side: int | None = None) -> DataSplits | None:
        """The data that the user named, `None` without a name; images of a folder get the size that the supernet takes.

        Args:
            side: pixels of a side, as typed or as a saved supernet says; else what the net of a factory says.

        Raises:
            InputError: there is no such data, or the factory fails.
        """
        from nasprune.data.load import PIXELS, load_data
        from nasprune.supernet.supernet import Supernet

        if source is None:
            return None
        made = self.made(seed) if self.factory is not None else None
        net = made.net if isinstance(made, Supernet) else made
        return load_data(source, seed=seed, size=side or _side(made) or PIXELS, model=net)

    def made(self, seed: int) -> nn.Module | Supernet:
        """What the factory gives, made once, with values that the seed fixes.

        Raises:
            InputError: it fails, or gives neither.
        """
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._made

    @cached_property
    def _made(self) -> nn.Module | Supernet:
        from torch import nn

        from nasprune.common.factories import call_factory
        from nasprune.supernet.supernet import Supernet

        found = call_factory(self.spec, what="supernet")
        if not isinstance(found, nn.Module | Supernet):
            kind = type(found).__name__
            raise InputError(
                f"supernet factory {self.spec!r} must return an nn.Module or nasprune.Supernet, got {kind}"
            )
        return found

    def _shape(self, net: nn.Module, data: DataSplits | None) -> tuple[int, ...]:
        if data is not None:
            return data.input_shape
        own = getattr(net, "input_shape", None)
        if not isinstance(own, list | tuple) or not all(isinstance(n, int) and n > 0 for n in own):
            raise InputError(
                f"the input size of {self.spec!r} is not known: its attribute `input_shape` is {own!r}; give --data, "
                "or a tuple such as (3, 32, 32)"
            )
        return tuple(own)


def fitted(size: Size, data: DataSplits | None) -> Size:
    """The size with the classes and images of the data.

    Raises:
        InputError: the data has no square images.
    """
    if data is None:
        return size
    shape = data.input_shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"data {data.name!r}: expected square images (channels, side, side), got {shape}")
    classes = data.num_classes if data.num_classes is not None else size.classes
    return replace(size, classes=classes, channels_in=shape[0], resolution=shape[1], imagenet=shape[1] > LARGE)


def resized(size: Size, channels: int | None, layers: int | None) -> Size:
    """The size with other channels and layers, where they are given."""
    return replace(
        size,
        channels=size.channels if channels is None else channels,
        layers=size.layers if layers is None else layers,
    )


def words(size: Size) -> str:
    """A size for people."""
    images = f"{size.channels_in}×{size.resolution}×{size.resolution}"
    layers = "1 layer" if size.layers == 1 else f"{size.layers} layers"
    return f"{size.channels} channels, {layers}, {size.classes} classes, images {images}"


def check_scorer(spec: str, data: object | None, plugins: tuple[Path, ...]) -> None:
    """Raises InputError unless there is such a scorer of operations, and data where it needs some."""
    from nasprune.supernet.score.naming import op_scorer

    if spec != "auto" and op_scorer(spec, plugins).needs_data and data is None:
        raise InputError(f"the scorer {spec!r} needs data; give some with --data")


def check_side(data: DataSplits | None, side: int | None) -> None:
    """Raises InputError where images are not of the size that was typed."""
    if side is not None and side < 1:
        raise InputError(f"--input-size must be at least 1 pixel, got {side}")
    if data is not None and side is not None and data.input_shape[-1] != side:
        raise InputError(
            f"--input-size is {side}, data {data.name!r} gives images {shape_words(data)} and is not resized; leave "
            "--input-size out"
        )


def shape_words(data: DataSplits) -> str:
    """The shape of one image for people."""
    return "×".join(map(str, data.input_shape))


def _side(made: nn.Module | Supernet | None) -> int | None:
    """Pixels of a side, as the net of a factory says them; `None` where it does not."""
    from nasprune.supernet.supernet import Supernet

    said = made.structure.inputs[0].shape[1:] if isinstance(made, Supernet) else getattr(made, "input_shape", None)
    if not isinstance(said, list | tuple) or len(said) != 3:
        return None
    return said[-1] if isinstance(said[-1], int) and said[-1] > 0 else None


def check_net(supernet: Supernet, data: DataSplits | None, name: str) -> None:
    """Raises InputError unless the supernet takes the images and has an output for every class."""
    from nasprune.data import check_fits

    if data is not None:
        check_fits(supernet.net, data, name=name)


def say_found(supernet: Supernet, space: SupernetSpace | None) -> None:
    """What was taken for no choice in a net of the user's own, and other notes on what was found there."""
    if space is None:
        for note in supernet.structure.notes[:NOTES]:
            say(f"note: {note}")


@contextmanager
def epochs_shown(total: int) -> Iterator[Callable[[Epoch], None]]:
    """A bar on a terminal, else a line every five seconds and for the first and last epoch."""
    console = stderr()
    if not console.is_terminal:
        last = time.monotonic()

        def line(epoch: Epoch) -> None:
            nonlocal last
            if epoch.number in (1, epoch.of) or time.monotonic() - last > _PLAIN_SECONDS:
                last = time.monotonic()
                say("  ".join([f"epoch {epoch.number}/{epoch.of}", *_state(epoch)]))

        yield line
        return
    from nasprune.cli.bars import bar_on

    what = "training the supernet"
    with bar_on(console) as bar:
        bar.update(what)

        def step(epoch: Epoch) -> None:
            bar.update(what, epoch.number, total, (f"epoch {epoch.number}/{epoch.of}", *_state(epoch)))

        yield step


def _state(epoch: Epoch) -> tuple[str, ...]:
    accuracy = f"validation accuracy {100 * epoch.validation_accuracy:.1f}%"
    return f"loss {epoch.loss:.4f}", accuracy, left(epoch.seconds * (epoch.of / epoch.number - 1))


def trained(
    supernet: Supernet,
    data: DataSplits,
    *,
    epochs: int,
    warmup_epochs: int = 0,
    method: str = "bilevel",
    seed: int,
    device: str = "auto",
) -> tuple[Supernet, float]:
    """The supernet trained with progress on the screen, and its last validation accuracy."""
    from nasprune.supernet.structure.refresh import refreshed
    from nasprune.supernet.supernet import Supernet
    from nasprune.supernet.train.training import architecture_of, random_paths, single_paths, train

    structure = supernet.structure
    last: list[float] = []
    with epochs_shown(epochs) as shown:

        def on_epoch(epoch: Epoch) -> None:
            last.append(epoch.validation_accuracy)
            shown(epoch)

        net = train(
            structure.net,
            data,
            architecture=lambda net: architecture_of(structure, net),
            epochs=epochs,
            warmup_epochs=warmup_epochs,
            draw=single_paths(structure, seed) if method == "paths" else None,
            judged=random_paths(structure, seed) if method == "paths" else None,
            seed=seed,
            device=device,
            on_epoch=on_epoch,
        )
    return Supernet(refreshed(replace(structure, net=net))), last[-1]
