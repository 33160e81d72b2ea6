"""Files of an image folder are read by threads, a batch ahead and in order; others only by the caller."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Dataset

from nasprune.data import load_data
from nasprune.data.batches import EqualBatches, batches
from nasprune.data.items import innermost
from nasprune.data.splits import size_of
from nasprune.errors import InputError


class Threads(Dataset):
    """Remembers who read what."""

    def __init__(self):
        self.seen = []

    def __getitem__(self, index):
        self.seen.append((index, threading.current_thread()))
        return torch.full((1, 2, 2), float(index)), 0

    def __len__(self):
        return 9


@pytest.fixture
def folder(tmp_path):
    """Forty pictures whose grey says their number."""
    for number in range(40):
        path = tmp_path / "data" / "ab"[number % 2]
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 5 * number, dtype=np.uint8)).save(path / f"{number:02}.png")
    return tmp_path / "data"


@pytest.fixture
def train(folder):
    return load_data(f"imagefolder:{folder}", size=8).train


@pytest.fixture
def readers(train, monkeypatch):
    """Names of the threads that opened each picture."""
    seen = []
    images = innermost(train)
    opened = images.loader
    monkeypatch.setattr(images, "loader", lambda path: (seen.append(threading.current_thread().name), opened(path))[1])
    return seen


def test_pictures_come_in_order_from_threads(train, readers):
    order = [7, 3, 11, 0, 19, 2, 5]
    found = torch.cat([images for images, _ in batches(train, 3, order)])
    assert torch.equal(found, torch.stack([train[index][0] for index in order]))
    assert all(name.startswith("nasprune-read") for name in readers[: len(order)])


def test_a_batch_is_read_before_it_is_asked_for_and_no_more(train, readers):
    reading = batches(train, 4)
    next(reading)
    reading.close()
    assert 4 <= len(readers) <= 8
    assert not [one for one in threading.enumerate() if one.name.startswith("nasprune-read")]


@pytest.mark.parametrize("asked", [[0, 1, 2, 3], [2, 0, 0, 3, 1], [-1, 0]])
def test_equal_batches_are_the_same_in_any_order(train, asked):
    order = list(range(size_of(train) - 1))
    found = EqualBatches(train, order, 6)
    plain = [torch.stack([train[index][0] for index in numbers]) for numbers in (order[:6], order[6:12], order[12:18])]
    plain.append(torch.stack([train[index][0] for index in order[-6:]]))
    assert len(found) == len(plain)
    for number in asked:
        assert torch.equal(found[number], plain[number])


def test_equal_batches_leave_no_threads_and_can_be_copied(train):
    found = EqualBatches(train, range(12), 4)
    first = found[0]
    assert not [one for one in threading.enumerate() if one.name.startswith("nasprune-read")]
    assert torch.equal(copy.deepcopy(found)[0], first)


def test_a_broken_picture_is_told_when_its_turn_comes_and_the_others_can_be_read_on(folder):
    data = load_data(f"imagefolder:{folder}", size=8).train
    files = innermost(data).samples
    broken = data.indices[5]
    Path(files[broken][0]).write_bytes(b"no picture")
    found = EqualBatches(data, range(16), 4)
    found[0]
    for _ in range(2):
        with pytest.raises(InputError, match=f"item {broken} failed.*repair or remove it"):
            found[1]
    assert found[2].shape == found[3].shape == (4, 3, 8, 8)


def test_the_data_sets_of_others_are_read_by_the_caller_one_by_one():
    data = Threads()
    list(batches(data, 4))
    assert data.seen == [(index, threading.current_thread()) for index in range(9)]
