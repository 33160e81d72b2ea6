"""Tables of rows, PIL images, streams and networks that say how their images were prepared."""

from __future__ import annotations

import logging
import os
from weakref import finalize

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import IterableDataset

import nasprune
from nasprune.data import load_data
from nasprune.data.load import prepared_for
from nasprune.data.pixels import Pixels
from nasprune.data.streams import Taken
from nasprune.errors import InputError
from tests.nets import EXAMPLE, TinyResNet


class Labelled:
    """What Hugging Face's `ClassLabel` is, as far as it is read."""

    num_classes = 3


class Table:
    """As a data set of Hugging Face: rows by number, columns by name."""

    def __init__(self, count: int = 40, mode: str = "RGB") -> None:
        self.count, self.mode = count, mode
        self.features = {"img": None, "label": Labelled(), "path": None}

    def __len__(self):
        return self.count

    def __getitem__(self, key):
        if isinstance(key, str):
            return [row["label"] for row in map(self.__getitem__, range(self.count))]
        if not 0 <= key < self.count:
            raise IndexError(key)
        return {"img": Image.new(self.mode, (20, 30), key), "label": key % 3, "path": f"{key}.png"}


def test_rows_with_pil_images_are_resized_and_normalised():
    data = load_data(Table(), size=8)
    assert data.num_classes == 3
    assert data.input_shape == (3, 8, 8)
    assert data.normalisation == Pixels().words
    assert len({label for _, label in (data.train[i] for i in range(len(data.train)))}) == 3
    grey, _ = load_data(Table(mode="L"), size=8).train[0]
    assert grey.shape == (3, 8, 8)


def test_rows_of_tensors_stay_as_they_are():
    rows = [{"pixel_values": torch.full((3, 4, 4), float(i)), "labels": i % 2} for i in range(20)]
    data = load_data(rows)
    assert len({float(image[0, 0, 0]) for image, _ in (data.train[i] for i in range(12))}) == 12
    assert data.normalisation == "as given"


def test_rows_that_leave_the_image_open_are_refused():
    rows = [{"left": torch.zeros(3, 4, 4), "right": torch.zeros(3, 4, 4)}] * 20
    with pytest.raises(InputError, match=r"columns left, right.*rename them to 'image' and 'label'"):
        load_data(rows)


class Says(nn.Module):
    def __init__(self, **said) -> None:
        super().__init__()
        self.pretrained_cfg = said


def test_a_network_says_how_its_images_were_prepared():
    own = Pixels.of(Says(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), crop_pct=0.9, interpolation="bicubic"))
    assert (own.mean, own.std, own.crop, own.interpolation) == ((0.5,) * 3, (0.5,) * 3, 0.9, "bicubic")
    white = Image.new("RGB", (30, 30), (255, 255, 255))
    assert torch.equal(own.to_tensor(8)(white), torch.ones(3, 8, 8))
    for broken in ({"mean": (0.5,), "std": (1, 1, 1)}, {"mean": (0, 0, 0), "std": (0, 1, 1)}, {}):
        assert Pixels.of(Says(**broken)) == Pixels.of(nn.Linear(1, 1)) == Pixels.of(None) == Pixels()


def test_a_search_prepares_the_images_of_a_folder_for_its_network(tmp_path):
    for number in range(40):
        place = tmp_path / f"class{number % 4}"
        place.mkdir(exist_ok=True)
        Image.effect_noise((12, 12), 80).save(place / f"{number}.png")
    net = TinyResNet().eval()
    net.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    found = nasprune.search(
        net, EXAMPLE, "80%", data=f"imagefolder:{tmp_path}", evaluator="kl", criterion="l2", reconstruct="none"
    )
    assert "mean 0.5, 0.5, 0.5 and deviation 0.25, 0.25, 0.25" in found.report.settings["normalisation"]


def test_data_that_was_read_before_its_network_is_prepared_for_it(tmp_path):
    for number in range(20):
        place = tmp_path / f"class{number % 2}"
        place.mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (255, 255, 255)).save(place / f"{number}.png")
    source = f"imagefolder:{tmp_path}"
    early = load_data(source, size=8)
    assert prepared_for(nn.Linear(1, 1), early, source, seed=0, size=8) is early
    says = Says(mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(prepared_for(says, early, source, seed=0, size=8).train[0][0], torch.ones(3, 8, 8))


class Stream(IterableDataset):
    def __init__(self, count: int, shape=(3, 8, 8)) -> None:
        self.count, self.shape = count, shape

    def __iter__(self):
        for number in range(self.count):
            yield torch.full(self.shape, float(number)), number % 4


def test_a_stream_is_taken_up_to_its_end(caplog):
    with caplog.at_level(logging.WARNING):
        data = load_data(Stream(50))
    assert "the first 50 items" in caplog.text
    parts = (data.train, data.calibration, data.validation, data.test)
    seen = sorted(
        (float(image[0, 0, 0]), label) for part in parts for image, label in (part[i] for i in range(len(part)))
    )
    assert seen == [(float(number), number % 4) for number in range(50)]
    assert load_data(torch.utils.data.DataLoader(Stream(20), batch_size=4)).input_shape == (3, 8, 8)


def test_of_a_long_stream_the_first_items_are_taken_in_constant_memory():
    alive, most = set(), 0

    def watched():
        nonlocal most
        for number, (image, label) in enumerate(Stream(10**9)):
            alive.add(number)
            finalize(image, alive.discard, number)
            most = max(most, len(alive))
            yield image, label

    taken = Taken(watched(), lambda image: image, "long", most=600)
    assert len(taken) == 600
    assert float(taken[599][0].mean()) == 599.0
    assert most < 5
    place = taken._folder
    del taken
    assert not os.path.exists(place)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (Stream(0), "the stream gives no items"),
        ([(torch.zeros(3, 4, 4), 0), (torch.zeros(3, 5, 5), 0)], r"item 1 is \(3, 5, 5\) of float32, others are"),
        ([(torch.full((3, 4, 4), torch.nan), 0)], "item 0 failed: its image holds NaN"),
        (["a word"], "item 0 failed: expected"),
    ],
)
def test_streams_that_cannot_be_read_are_refused(stream, message):
    with pytest.raises(InputError, match=message):
        Taken(iter(stream), lambda image: image, "short")
