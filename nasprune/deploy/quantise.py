"""`nasprune.quantise`: a network as ONNX in 8-bit integers, beside what it is in floating point.

Static quantisation after training (Jacob et al. 2018, arXiv:1712.05877): weights get a scale for each output channel,
activations one for each tensor, from the range that they take on calibration images. onnxruntime does it, with signed
integers, as pairs of QuantizeLinear and DequantizeLinear that runtimes fuse. Departure from the paper: no training.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from nasprune.common.arguments import path as as_path
from nasprune.common.factories import one_line
from nasprune.common.files import check_places, drop_empty, make_folder, unwritable
from nasprune.common.inputs import ExampleInputs, Inputs
from nasprune.common.phases import Steps, unseen
from nasprune.data.batches import batches, draw
from nasprune.data.load import DataSource, check_fits, image_side, load_data
from nasprune.data.splits import size_of
from nasprune.deploy import onnx
from nasprune.deploy.export import export
from nasprune.deploy.formats import format_of
from nasprune.errors import InputError
from nasprune.graph.capture import quiet

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

    before, after: the same network in floating point and in integers, in onnxruntime on this CPU. agreement: the share
    of test images whose largest output is the same. images: how many of them there are, and of calibration.
    """

    file: Path
    before: Side
    after: Side
    agreement: float
    images: tuple[int, int]

    def __str__(self) -> str:
        tested, used = self.images
        right = [side.accuracy for side in (self.before, self.after)]
        accuracy = f", accuracy {right[0]:.1%} -> {right[1]:.1%}" if None not in right else ""
        return (
            f"int8 from {used} calibration images: {self.before.bytes / 1e6:.2f} -> {self.after.bytes / 1e6:.2f} MB, "
            f"{self.before.milliseconds:.2f} -> {self.after.milliseconds:.2f} ms{accuracy}, the same answer on "
            f"{self.agreement:.1%} of {tested} test images"
        )


@torch.inference_mode(mode=False)
def quantise(
    model: nn.Module,
    example_inputs: ExampleInputs,
    path: str | Path,
    data: DataSource,
    *,
    seed: int = 0,
    on_step: Steps = unseen,
) -> Quantised:
    """Writes a classifier as ONNX with 8-bit weights and activations, and compares it with itself in floating point.

    Args:
        model: a network in float32 that takes batches of images, such as `result.model`; left as it is.
        example_inputs: what it is called with, one tensor; files of images are read in its size.
        path: of the file, which ends with ".onnx"; one that is there is replaced.
        data: as for `nasprune.search`. Its calibration part, 256 images at most, gives the ranges of activations; its
            test part is what answers are compared on, against labels where these are class numbers.
        seed: of how data that comes whole is parted.
        on_step: told how many test images have run.

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
    splits = load_data(data, seed=seed, size=image_side(inputs), model=model)
    check_fits(model, splits, name=type(model).__name__)
    used, tested = splits.calibration, splits.test
    drawn = draw(size_of(used), CALIBRATION_IMAGES)
    made = make_folder(place.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.stem}.", dir=place.parent) as folder:
            plain, small = Path(folder) / "float.onnx", Path(folder) / place.name
            if len(export(model, inputs, plain).files) > 1:
                raise InputError("the weights fill more than one ONNX file, which integers are not made of; cut more")
            _write(plain, small, (inputs for inputs, _ in batches(used, TOGETHER, drawn)))
            found = _compared(plain, small, batches(tested, TOGETHER), size_of(tested), on_step)
            os.replace(small, place)
    except OSError as error:
        raise unwritable(place.parent, error) from error
    finally:
        drop_empty(made)
    before, after, agreement = found
    return Quantised(place, before, after, agreement, (size_of(tested), len(drawn)))


def _check_float(model: nn.Module) -> None:
    other = next((value.dtype for value in model.parameters() if value.dtype != torch.float32), None)
    if other is not None:
        raise InputError(f"integers are made from a network in float32, this one has weights in {other}; call .float()")


class _Reader:
    """Batches as onnxruntime asks for them: its `CalibrationDataReader` by form, which is no class to mypy."""

    def __init__(self, name: str, images: Iterable[Tensor]) -> None:
        self._name, self._left = name, iter(images)

    def get_next(self) -> dict[str, Any] | None:
        found = next(self._left, None)
        return None if found is None else {self._name: found.float().numpy()}


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
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
            )
    except OSError:
        raise
    except Exception as error:  # whatever onnxruntime raises on what torch wrote
        raise InputError(
            f"onnxruntime cannot turn the network into integers: {type(error).__name__}: {one_line(error)}; take "
            "`nasprune.export`, which keeps floating point"
        ) from error


def _compared(
    plain: Path, small: Path, images: Iterator[tuple[Tensor, Tensor]], count: int, on_step: Steps
) -> tuple[Side, Side, float]:
    """Both files on the test images: their sides, and the share of images with the same largest output."""
    sessions = [onnx.session(str(path)) for path in (plain, small)]
    name = sessions[0].get_inputs()[0].name
    right, same, seen, known = [0, 0], 0, 0, 0
    one: Tensor | None = None
    for inputs, labels in images:
        one = inputs[:1] if one is None else one
        outputs = [session.run(None, {name: inputs.float().numpy()})[0] for session in sessions]
        if outputs[0].ndim != 2:
            raise InputError(
                f"integers are judged by the answers of a classifier, whose output has shape (n, classes), got "
                f"{outputs[0].shape}; write it with `nasprune.export`, which compares all that a network gives"
            )
        answers = [each.argmax(1) for each in outputs]
        same += int((answers[0] == answers[1]).sum())
        seen += len(inputs)
        if isinstance(labels, Tensor) and labels.ndim == 1 and not labels.is_floating_point():
            truth = labels.numpy()
            known += int((truth >= 0).sum())
            right = [total + int((own == truth).sum()) for total, own in zip(right, answers, strict=True)]
        on_step(seen, count)
    assert one is not None
    times = _times([partial(session.run, None, {name: one.float().numpy()}) for session in sessions])
    accuracies = [total / known if known else None for total in right]
    before, after = (
        Side(path.stat().st_size, time, accuracy)
        for path, time, accuracy in zip((plain, small), times, accuracies, strict=True)
    )
    return before, after, same / seen


def _times(calls: list[Any]) -> list[float]:
    """Median milliseconds of each call, all in turn."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(TURNS):
        for own, call in zip(found, calls, strict=True):
            start = perf_counter()
            call()
            own.append(1e3 * (perf_counter() - start))
    return [median(own) for own in found]
