"""What `supernet.json` and `architecture.json` say, read field by field within limits before anything is built."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from nasprune.common.fields import LARGEST, Field, Source, parse, shown
from nasprune.common.files import check_places, content_of
from nasprune.common.records import record_of
from nasprune.common.seals import outdated, sealed, unsealed
from nasprune.errors import InputError
from nasprune.supernet.genotype import codecs
from nasprune.supernet.genotype.genotype import Genotype
from nasprune.supernet.genotype.spaces import Size
from nasprune.supernet.price.counting import Counts

SUPERNET, ARCHITECTURE, WEIGHTS = "supernet.json", "architecture.json", "model.safetensors"
GENOTYPE, REPORT, PAGE = "genotype.txt", "report.json", "report.md"
FILES = (SUPERNET, ARCHITECTURE, WEIGHTS, GENOTYPE, REPORT, PAGE)
FORMAT = 2
MOST = {"channels": 4096, "layers": 256, "classes": 2**20, "channels_in": 4096, "resolution": 8192}
"""Of the sizes in a file."""
WORK = 2**36
"""Of channels² · layers · resolution² in a file: forty times DARTS' network for ImageNet."""
AXES, ELEMENTS = 8, 2**26
"""Of the example input that a file describes."""
THEN = "give a folder that was saved, or save it again"


@dataclass(frozen=True)
class SupernetFile:
    """`supernet.json`. space: its name with options, "" is none. size: of the supernet, where the space builds it.

    kept: choice -> names of the candidates that stay. input_shape: batch first. plain: names of tensors outside the
    state_dict. settings: how it came about, such as counter, budget, epochs. weights: digest of the file of weights.
    whole_numbers: whether it reads integers.
    """

    space: str
    size: Size | None
    kept: Mapping[str, tuple[str, ...]]
    input_shape: tuple[int, ...]
    plain: tuple[str, ...]
    settings: Mapping[str, str]
    weights: str
    whole_numbers: bool = False

    def to_json(self) -> str:
        return json.dumps(sealed({"format": FORMAT, **asdict(self)}), indent=1)

    @classmethod
    def read(cls, folder: Path) -> SupernetFile:
        """Raises InputError where the file is missing or is something else; names file and field."""
        found = _read(folder / SUPERNET, "a saved supernet")
        record = record_of(cls, found)
        _check_size(record.size, found)
        shape = found.members()["input_shape"]
        if not 2 <= len(record.input_shape) <= AXES or not 0 < math.prod(record.input_shape) <= ELEMENTS:
            raise shape.wrong(f"2 to {AXES} sizes above 0, of at most {ELEMENTS:,} elements together")
        return record

    @property
    def source(self) -> str:
        """The space or factory that made it, as its settings name it; it is only a name."""
        return self.settings.get("space") or self.space


@dataclass(frozen=True)
class ArchitectureFile:
    """`architecture.json`. ops: choice -> the operation that stays. counts: of the network. The rest as above."""

    space: str
    genotype: Genotype | None
    ops: Mapping[str, str]
    size: Size | None
    counts: Counts
    settings: Mapping[str, str]
    weights: str

    def to_json(self) -> str:
        genotype = json.loads(codecs.to_json(self.genotype)) if self.genotype is not None else None
        return json.dumps(sealed({"format": FORMAT, **asdict(self), "genotype": genotype}), indent=1)

    @classmethod
    def read(cls, folder: Path) -> ArchitectureFile:
        """Raises InputError where the file is missing or is something else; names file and field."""
        found = _read(folder / ARCHITECTURE, "a saved architecture")
        parts = found.parts("space", "genotype", "ops", "size", "counts", "settings", "weights")
        size = record_of(Size, parts["size"]) if not parts["size"].absent else None
        _check_size(size, found)
        return cls(
            space=parts["space"].text(),
            genotype=_genotype(parts["genotype"]),
            ops=parts["ops"].words(),
            size=size,
            counts=record_of(Counts, parts["counts"]),
            settings=parts["settings"].words(),
            weights=parts["weights"].text(),
        )


def check_free(folder: Path, settings: Mapping[str, str] | None = None, *, names: Iterable[str] = FILES) -> None:
    """Nothing where the files of a supernet may be written into `folder`.

    Args:
        settings: of the run that writes; `None` replaces whatever supernet was saved there. names: of its files.

    Raises:
        InputError: it is no folder, holds another run, or files that no supernet is known to have been saved with.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{str(folder)!r} is a file; choose a folder for --out")
    check_places(folder, names)
    there = [_settings(folder / name, what) for name, what in ((SUPERNET, "supernet"), (ARCHITECTURE, "architecture"))]
    known = [one for one in there if one is not None]
    taken = [name for name in names if os.path.lexists(folder / name)]
    if taken and not known:
        raise InputError(
            f"{str(folder)!r} holds a file {taken[0]!r} that no supernet is known to have been saved with; choose "
            "another --out, or move it away"
        )
    for one in known if settings is not None else ():
        for key in (*(settings or {}), *one):
            if one.get(key) != (settings or {}).get(key):
                raise InputError(
                    f"{str(folder)!r} holds another run ({key} was {one.get(key, 'not given')!r}, now "
                    f"{(settings or {}).get(key, 'not given')!r}); choose another --out, or delete that folder"
                )


def _settings(path: Path, what: str) -> Mapping[str, str] | None:
    """The settings in a saved file; `None` where there is none."""
    if not path.exists():
        return None
    return _read(path, f"a saved {what}", "choose another --out, or move it away").members()["settings"].words()


def _read(path: Path, what: str, then: str = THEN) -> Field:
    """The record in a file, without its format and digest, which are checked."""
    found = parse(content_of(path, "the file", then, most=LARGEST), Source(repr(str(path)), what, then))
    members = found.members()
    number = members["format"].value if "format" in members else None
    if number != FORMAT or isinstance(number, bool):
        before = (
            "files before format 2 lack the digest that binds them to their weights; make it again with this nasprune, "
            f"or {then}"
        )
        raise InputError(
            f"{str(path)!r} has the format {shown(number)}, expected {FORMAT}: {outdated(number, FORMAT, before)}"
        )
    whole = unsealed(found)
    if "settings" not in whole.value:
        raise whole.source.wrong("`settings` is not there")
    return Field(whole.source, {name: value for name, value in whole.value.items() if name != "format"})


def _check_size(size: Size | None, found: Field) -> None:
    """Raises InputError where a network of this size would be larger than any that is meant."""
    if size is None:
        return
    parts = found.members()["size"].members()
    for name, most in MOST.items():
        if name in parts:
            parts[name].whole(1, most)
    if size.channels**2 * size.layers * size.resolution**2 > WORK:
        raise found.members()["size"].wrong("a size whose network can be run")


def _genotype(found: Field) -> Genotype | None:
    if found.absent:
        return None
    try:
        return codecs.from_json(json.dumps(found.value))
    except InputError as error:
        raise found.source.wrong(f"`{found.path}`: {error}") from error
