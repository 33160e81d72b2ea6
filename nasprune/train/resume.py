"""A training that goes on where it was killed: after every epoch its state is written, all of it or none.

`finetune.json` says how far it is and what it was asked for, and carries the digest of the tensors beside it; these lie
in a file of their own for each epoch, so that a kill between two files leaves the older pair whole. Every epoch seeds
the random generators anew, which is why their state is not part of it. Of an epoch that takes long the state is written
on the way as well, with that of the generators, to `finetune-within.json` and a file beside it, until it is done.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from nasprune.common.arguments import number
from nasprune.common.fields import Field, Source, parse
from nasprune.common.files import check_places, content_of, write_all
from nasprune.common.records import record_of
from nasprune.common.seals import check_bound, digest_of_bytes, sealed, unsealed
from nasprune.errors import InputError
from nasprune.models.weights import read_tensors, to_bytes
from nasprune.train.partners import Memory
from nasprune.train.progress import Epoch

SAVE_EVERY = 600.0
"""Seconds between states of an epoch on its way."""
LARGEST = 2**24
PARTNER = "partner."
OTHER = "choose another folder"
THEN = f"{OTHER}, or delete the file to begin anew"


@dataclass(frozen=True)
class Position:
    """How far a training is. steps: taken and kept. backs: how often the rate was lowered. best: the best epoch so far.

    start_loss, start_accuracy: of the network before training, on the validation part. guess: the loss of guesses.
    first_loss: of the first step, the teacher's part included. ended: nothing is left to do.
    """

    steps: int = 0
    backs: int = 0
    start_loss: float = 0.0
    start_accuracy: float = 0.0
    guess: float = 0.0
    first_loss: float = 0.0
    best: int = 0
    best_accuracy: float = 0.0
    ended: bool = False
    epochs: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()

    def noted(self, note: str) -> Position:
        """The same with one more thing to be said."""
        return replace(self, notes=(*self.notes, note))


@dataclass(frozen=True)
class Within:
    """How far an epoch is. steps: of it. loss, right: sums over the images that were seen."""

    steps: int = 0
    loss: float = 0.0
    right: float = 0.0
    seen: int = 0

    @property
    def mean_loss(self) -> float:
        return self.loss / self.seen

    @property
    def mean_right(self) -> float:
        return self.right / self.seen

    def after(self, loss: float, right: float, count: int) -> Within:
        """One step more. loss, right: means over its `count` images."""
        return Within(self.steps + 1, self.loss + loss * count, self.right + right * count, self.seen + count)


@dataclass(frozen=True)
class State:
    """All of a training. tensors: of the network, averages and the optimizer. memory: of the partner, if any.

    position: as after the last whole epoch; within: how far the next one is.
    """

    position: Position
    tensors: dict[str, Tensor]
    memory: Memory = field(default_factory=Memory)
    within: Within = field(default_factory=Within)


@dataclass(frozen=True)
class _Record:
    settings: Mapping[str, str]
    position: Position
    weights: str
    number: int = field(default=0)
    partner: str = ""
    within: Within = field(default_factory=Within)


@dataclass
class Keeper:
    """Writes and reads the state of one training. folder: or `None`, then nothing is kept. settings: what it is of.

    name: of its files. redone: what deleting them leads to, for messages.
    """

    folder: Path | None
    settings: Mapping[str, str]
    name: str = "finetune"
    redone: str = "begin anew"
    number: int = 0

    @property
    def file(self) -> str:
        return f"{self.name}.json"

    @property
    def then(self) -> str:
        """What to do where it cannot be gone on with."""
        return THEN if self.folder is None else f"{OTHER}, or delete {str(self.folder / self.file)!r} to {self.redone}"

    def within(self) -> Keeper:
        """Of the same training, for an epoch on its way."""
        return Keeper(self.folder, self.settings, "finetune-within", "begin the epoch anew")

    def drop(self) -> None:
        """Nothing of it stays on the disk: the record, then the tensors it names, and those that a kill left behind."""
        if self.folder is not None:
            for name in (self.file, self._tensors(self.number), self._tensors(self.number + 1)):
                with suppress(OSError):
                    (self.folder / name).unlink(missing_ok=True)

    def found(self) -> State | None:
        """Where an earlier run of the same training was; `None` where there was none.

        Raises:
            InputError: the files are damaged, or of another training; the first setting that differs is named.
        """
        if self.folder is None:
            return None
        path = self.folder / self.file
        check_places(self.folder, [self.file])
        if not path.exists():
            return None
        source = Source(repr(str(path)), "the record of a training", self.then)
        whole = unsealed(parse(content_of(path, "the record of a training", self.then, most=LARGEST), source))
        record = record_of(_Record, whole)
        self._check(record.settings, path)
        self.number = record.number
        tensors = self.folder / self._tensors(record.number)
        check_bound(tensors, Field(source, record.weights, "weights"), "tensors", self.then, self.then)
        own: dict[str, Tensor] = {}
        partners: dict[str, Tensor] = {}
        for name, value in read_tensors(tensors).items():
            part, whose = (partners, name.removeprefix(PARTNER)) if name.startswith(PARTNER) else (own, name)
            part[whose] = value
        return State(record.position, own, Memory(record.partner, partners), record.within)

    def keep(self, state: State) -> None:
        """Writes where the training is; what was written before is dropped once this is on the disk."""
        if self.folder is None:
            return
        before, self.number = self.number, self.number + 1
        partners = {f"{PARTNER}{name}": value for name, value in state.memory.tensors.items()}
        content = to_bytes({**state.tensors, **partners})
        digest, words = digest_of_bytes(content), state.memory.words
        record = asdict(_Record(dict(self.settings), state.position, digest, self.number, words, state.within))
        text = json.dumps(sealed(_plain(record)), indent=1)
        write_all(self.folder, {self._tensors(self.number): content, self.file: text.encode()})
        if before:
            with suppress(OSError):
                (self.folder / self._tensors(before)).unlink(missing_ok=True)

    def _tensors(self, number: int) -> str:
        """The name of the file with the tensors of the number-th record."""
        return f"{self.name}-{number:05}.safetensors"

    def _check(self, settings: Mapping[str, str], path: Path) -> None:
        for name in dict.fromkeys((*settings, *self.settings)):
            then, now = settings.get(name, "not there"), self.settings.get(name, "not there")
            if then != now:
                raise InputError(f"{str(path)!r} is of another training ({name} was {then!r}, now {now!r}); {THEN}")


def check_save_every(seconds: float) -> None:
    """Raises InputError unless it is a number of seconds above 0."""
    number("save_every", seconds, "give seconds, for example save_every=600")
    if not seconds > 0:
        raise InputError(f"`save_every` must be above 0, got {seconds}; give seconds, for example save_every=600")


def _plain(record: dict[str, object]) -> dict[str, object]:
    """As JSON reads it back, for the digest: tuples become lists."""
    plain: dict[str, object] = json.loads(json.dumps(record))
    return plain
