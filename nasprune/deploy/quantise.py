"""`nasprune.quantise`: a network as ONNX in 8-bit integers, beside what it is in floating point.

Static quantisation after training (Jacob et al. 2018, arXiv:1712.05877): weights get a scale for each output channel,
activations one for each tensor, from the range that they take on calibration images. onnxruntime does it, with signed
integers, as pairs of QuantizeLinear and DequantizeLinear that runtimes fuse. Departures from the paper: no training;
and weights use seven of their eight bits, since processors without VNNI add products of two bytes in sixteen bits,
which overflow where all eight are used.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf, sqrt
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from nasprune.common.arguments import path as as_path
from nasprune.common.factories import one_line
from nasprune.common.files import check_places, drop_empty, make_folder, unwritable
from nasprune.common.html import code, in_notebook, table
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.phases import Phases, PhaseStep, Steps
from nasprune.data.batches import EqualBatches, batches, draw, finite
from nasprune.data.load import DataSource, check_fits, image_side, load_data
from nasprune.data.splits import size_of
from nasprune.deploy import onnx
from nasprune.deploy.captured import items
from nasprune.deploy.export import export
from nasprune.deploy.formats import format_of
from nasprune.errors import InputError, NaspruneError
from nasprune.graph.capture import quiet

Images = Dataset[tuple[Tensor, int]]
Outputs = Sequence[NDArray[Any]]
CALIBRATION_IMAGES = 256
TOGETHER = 16
"""Images in a batch."""
TURNS = 31
"""Runs of each file on one image, in alternation, whose median is its time."""


@dataclass(frozen=True)
class Side:
    """A file of one precision: bytes, milliseconds for one image, and its accuracy on test images with labels."""

    bytes: int
    milliseconds: float
    accuracy: float | None


@dataclass(frozen=True)
class Quantised:
    """A network in integers.

    before, after: the same network in floating point and in integers, in onnxruntime on this CPU. change: of outputs on
    test images, root mean square, as a share of theirs; of several outputs the largest. agreement: the share of test
    images whose largest output is the same; `None` of what gives no (n, classes). images: how many test images there
    are, and calibration images.
    """

    file: Path
    before: Side
    after: Side
    change: float
    agreement: float | None
    images: tuple[int, int]

    def __str__(self) -> str:
        tested, used = self.images
        right = [side.accuracy for side in (self.before, self.after)]
        accuracy = f", accuracy {right[0]:.1%} -> {right[1]:.1%}" if None not in right else ""
        same = f", the same answer on {self.agreement:.1%}" if self.agreement is not None else ""
        return (
            f"int8 from {used} calibration images: {self.before.bytes / 1e6:.2f} -> {self.after.bytes / 1e6:.2f} MB, "
            f"{self.before.milliseconds:.2f} -> {self.after.milliseconds:.2f} ms{accuracy}; on {tested} test images "
            f"outputs change by {self.change:.1%}{same}"
        )

    def _repr_html_(self) -> str:
        """For notebooks: both files side by side."""
        rows = [
            (name, f"{side.bytes / 1e6:.2f}", f"{side.milliseconds:.2f}", _percent(side.accuracy))
            for name, side in (("floating point", self.before), ("8-bit integers", self.after))
        ]
        tested, used = self.images
        same = f", {self.agreement:.1%} of the answers are the same" if self.agreement is not None else ""
        said = f"On {tested:,} test images outputs change by {self.change:.1%}{same}; calibrated on {used:,}."
        head = ("in onnxruntime", "MB", "ms", "test accuracy")
        parts = (table(head, rows, numbers=(1, 2, 3)), f"<p>{said}</p>", f"<p>{code(str(self.file))}</p>")
        return in_notebook(parts)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


@torch.inference_mode(mode=False)
def quantise(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    data: DataSource,
    *,
    seed: int = 0,
    on_phase: Callable[[PhaseStep], None] | None = None,
) -> Quantised:
    """Writes a network as ONNX with 8-bit weights and activations, and compares it with itself in floating point.

    Args:
        model: a network in float32 that takes batches of images, such as `result.model`; left as it is.
        example_inputs: what it is called with, one tensor; files of images are read in its size.
        path: of the file, which ends with ".onnx"; one that is there is replaced.
        data: as for `nasprune.search`. Its calibration part, 256 images at most, gives the ranges of activations; its
            test part is what outputs are compared on, and answers with labels where these are class numbers.
        seed: of how data that comes whole is parted.
        on_phase: called when a phase starts, such as "calibrating", and after each of its steps, which are images.

    Raises:
        InputError: a package is missing, the network or the data cannot be used, or the file cannot be written.
        VerificationError: the network in floating point is not what PyTorch runs.
    """
    place = as_path("path", path, "write nasprune.quantise(model, inputs, 'small-int8.onnx', data='digits')")
    format_of("onnx", place)
    check_places(place.parent, (place.name,))
    _check_float(model)
    inputs = Inputs.of(example_inputs, model)
    if len(inputs.leaves) != 1:
        raise InputError(f"integers are made of networks that are called with one tensor of images, got {inputs}")
    phases = Phases(on_phase)
    with phases.phase("reading the data"):
        splits = load_data(data, seed=seed, size=image_side(inputs), model=model)
        check_fits(model, splits, name=type(model).__name__)
    used, tested = splits.calibration, splits.test
    drawn = draw(size_of(used), CALIBRATION_IMAGES)
    dtype = inputs.tensors[0].dtype
    made = make_folder(place.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.stem}.", dir=place.parent) as folder:
            plain, small = Path(folder) / "float.onnx", Path(folder) / place.name
            with phases.phase("writing floating point"):
                written = export(model, items(inputs, 1) or inputs, plain)
            if len(written.files) > 1:
                raise InputError("the weights fill more than one ONNX file, which integers are not made of; cut more")
            together = TOGETHER if written.batch is None else 1
            with phases.phase("calibrating") as step:
                _write(plain, small, _calibration(used, drawn, together, dtype, step))
            with phases.phase("running test images") as step:
                found = _compared(plain, small, _tests(tested, together, dtype, step))
            os.replace(small, place)
    except OSError as error:
        raise unwritable(place.parent, error) from error
    finally:
        drop_empty(made)
    return Quantised(
        place, found.sides[0], found.sides[1], found.change, found.agreement, (size_of(tested), len(drawn))
    )


def _check_float(model: nn.Module) -> None:
    other = next((value.dtype for value in model.parameters() if value.dtype != torch.float32), None)
    if other is not None:
        raise InputError(f"integers are made from a network in float32, this one has weights in {other}; call .float()")


def _calibration(
    dataset: Images, drawn: Sequence[int], together: int, dtype: torch.dtype, step: Steps
) -> Iterator[Tensor]:
    for number, images in enumerate(EqualBatches(dataset, drawn, together)):
        step(min(number * together, len(drawn)), len(drawn))
        yield images.to(dtype)
    step(len(drawn), len(drawn))


def _tests(dataset: Images, together: int, dtype: torch.dtype, step: Steps) -> Iterator[tuple[Tensor, object]]:
    seen, count = 0, size_of(dataset)
    for images, labels in batches(dataset, together):
        if not isinstance(images, Tensor):
            raise InputError("test images differ in shape; give them in one, resized or cut in the data set")
        yield finite(images).to(dtype), labels
        seen += len(images)
        step(seen, count)


class _Reader:
    """Batches as onnxruntime asks for them: its `CalibrationDataReader` by form, which is no class to mypy."""

    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self._name, self._left = name, iter(images)

    def get_next(self) -> dict[str, Any] | None:
        found = next(self._left, None)
        return None if found is None else {self._name: found.numpy()}


def _write(plain: Path, small: Path, images: Iterable[Tensor]) -> None:
    """The file in integers, from the one in floating point."""
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnx.session(str(plain)).get_inputs()[0].name
    fused = plain.with_name("fused.onnx")
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            quant_pre_process(str(plain), str(fused), skip_symbolic_shape=True)
            quantize_static(
                str(fused),
                str(small),
                _Reader(name, images),
                per_channel=True,
                reduce_range=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
    except (NaspruneError, OSError):
        raise
    except Exception as error:  # whatever onnxruntime raises on what torch wrote
        raise InputError(
            f"onnxruntime cannot turn the network into integers: {type(error).__name__}: {one_line(error)}; take "
            "`nasprune.export`, which keeps floating point"
        ) from error


@dataclass(frozen=True)
class _Found:
    sides: tuple[Side, Side]
    change: float
    agreement: float | None


@dataclass
class _Tally:
    """What both files gave so far. apart, size: sums of squares, of each output. known: images with a class number."""

    apart: list[float] = field(default_factory=list)
    size: list[float] = field(default_factory=list)
    seen: int = 0
    same: int = 0
    known: int = 0
    right: tuple[int, int] = (0, 0)

    def add(self, before: Outputs, after: Outputs, labels: object) -> None:
        self.apart = self.apart or [0.0] * len(before)
        self.size = self.size or [0.0] * len(before)
        for number, (a, b) in enumerate(zip(before, after, strict=True)):
            own, other = (np.nan_to_num(np.asarray(value, dtype=np.float64)) for value in (a, b))
            self.apart[number] += float(((own - other) ** 2).sum())
            self.size[number] += float((own**2).sum())
        if before[0].ndim != 2 or len(before) > 1:
            return
        answers = [outputs[0].argmax(1) for outputs in (before, after)]
        self.seen += len(answers[0])
        self.same += int((answers[0] == answers[1]).sum())
        if isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point():
            truth = labels.numpy()
            self.known += int((truth >= 0).sum())
            first, second = (int((own == truth).sum()) for own in answers)
            self.right = self.right[0] + first, self.right[1] + second

    @property
    def change(self) -> float:
        return max(map(_share, self.apart, self.size), default=0.0)

    @property
    def agreement(self) -> float | None:
        return self.same / self.seen if self.seen else None


def _share(apart: float, size: float) -> float:
    return sqrt(apart / size) if size else (inf if apart else 0.0)


def _compared(plain: Path, small: Path, images: Iterator[tuple[Tensor, object]]) -> _Found:
    """Both files on the test images."""
    sessions = [onnx.session(str(path)) for path in (plain, small)]
    name = sessions[0].get_inputs()[0].name
    tally, first = _Tally(), None
    for inputs, labels in images:
        given = {name: inputs.numpy()}
        first = {name: inputs[:1].numpy()} if first is None else first
        before, after = (session.run(None, given) for session in sessions)
        tally.add(before, after, labels)
    assert first is not None
    times = _times([partial(session.run, None, first) for session in sessions])
    sides = tuple(
        Side(path.stat().st_size, time, right / tally.known if tally.known else None)
        for path, time, right in zip((plain, small), times, tally.right, strict=True)
    )
    return _Found((sides[0], sides[1]), tally.change, tally.agreement)


def _times(calls: list[Any]) -> list[float]:
    """Median milliseconds of each call, all in turn."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(TURNS):
        for own, call in zip(found, calls, strict=True):
            start = perf_counter()
            call()
            own.append(1e3 * (perf_counter() - start))
    return [median(own) for own in found]
