"""Tensors come back as they were, from memory and from files."""

from __future__ import annotations

import gc
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nasprune.common.shelf import Shelf
from nasprune.errors import InputError

LIMITS = pytest.mark.parametrize("limit", [0, 2**20])


def examples() -> list[Tensor]:
    x = torch.randn(4, 6, 8)
    return [
        x,
        x.transpose(0, 2)[1:, ::2],
        torch.randn(2, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.tensor(3),
        torch.zeros(0, 3),
        torch.randn(7).to(torch.bfloat16),
        torch.randn(100)[:2],
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.arange(5) > 2,
        torch.randn(3).expand(4, 3),
    ]


@LIMITS
def test_what_is_put_is_read_and_taken(limit: int) -> None:
    tensors = examples()
    with Shelf(limit) as shelf:
        shelf.put(("a", 1), tensors)
        shelf.put("b", [torch.ones(2)])
        for found in (shelf.read(("a", 1)), shelf.take(("a", 1))):
            assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors, found, strict=True))
        assert found[2].is_contiguous(memory_format=torch.channels_last)
        with pytest.raises(KeyError):
            shelf.read(("a", 1))
        shelf.put(("a", 1), [])
        assert shelf.take(("a", 1)) == []


@LIMITS
def test_tensors_that_share_memory_share_it_again(limit: int) -> None:
    x = torch.randn(6, 4)
    with Shelf(limit) as shelf:
        shelf.put(0, [x, x[2:4]])
        whole, part = shelf.take(0)
    part.zero_()
    assert not whole[2:4].any()
    assert whole[:2].all()


def test_only_what_is_beyond_the_limit_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Shelf(1000) as shelf:
        for number in range(4):
            shelf.put(number, [torch.randn(100)])
        assert len(list(tmp_path.glob("*/*"))) == 2
        shelf.take(0)
        shelf.put(4, [torch.randn(100)])
        assert len(list(tmp_path.glob("*/*"))) == 2
        shelf.take(3)
        shorter = torch.randn(60)
        shelf.put(5, [shorter])
        assert len(list(tmp_path.glob("*/*"))) == 2, "a file that is free is written over"
        assert torch.equal(shelf.read(5)[0], shorter)
    assert not list(tmp_path.iterdir())


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 40)), max_size=30), st.integers(0, 400))
def test_any_order_of_puts_and_takes(steps: list[tuple[bool, int, int]], limit: int) -> None:
    known: dict[int, Tensor] = {}
    with Shelf(limit) as shelf:
        for add, key, size in steps:
            if add and key not in known:
                known[key] = torch.randn(size)
                shelf.put(key, [known[key]])
            elif not add and key in known:
                assert torch.equal(shelf.take(key)[0], known.pop(key))
        for key, value in known.items():
            assert torch.equal(shelf.read(key)[0], value)


def test_a_full_disk_is_said_and_a_shelf_that_nobody_closes_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shelf = Shelf(0)
    shelf.put(0, [torch.randn(3)])
    folder = next(tmp_path.iterdir())
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"cannot put activations aside.*TMPDIR"):
        shelf.put(1, [torch.randn(3)])
    (tmp_path / "elsewhere").rename(folder)
    del shelf
    gc.collect()
    assert not list(tmp_path.iterdir())
