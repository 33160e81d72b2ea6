"""Patterns of zeros: read, laid over a layer's weights, and kept."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nasprune.errors import InputError
from nasprune.sparse.patterns import Pattern


@pytest.mark.parametrize("text", ["unstructured", "2:4", "4:8", "block:4", "kernel"])
def test_patterns_are_read_and_written(text):
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize("text", ["4:2", "0:4", "2:128", "block:1", "rows", 3, None])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match="expected a pattern of zeros such as 'unstructured', '2:4'"):
        Pattern.parse(text)


def test_n_of_m_runs_along_input_channels_at_one_position():
    scores = torch.arange(8 * 9.0).reshape(1, 72, 1)
    mask = Pattern.parse("2:4").mask(scores, 0, 9).reshape(8, 9)
    assert mask.reshape(2, 4, 9).sum(1).eq(2).all()
    assert not Pattern.parse("2:4").fits(6 * 9, 9)


def test_a_kernel_stands_or_falls_whole():
    scores = torch.rand(2, 27, 4, generator=torch.Generator().manual_seed(0))
    mask = Pattern.parse("kernel").mask(scores, 60, 9).reshape(2, 3, 9, 4)
    assert mask.all(2).eq(mask.any(2)).all()
    assert int(mask.sum()) == 54  # six whole kernels of nine


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["unstructured", "block:2", "block:4"]), st.integers(0, 300), st.integers(0, 9))
def test_no_more_stay_than_may(text, kept, seed):
    scores = torch.rand(1, 8 * 9, 4, generator=torch.Generator().manual_seed(seed))
    pattern = Pattern.parse(text)
    mask = pattern.mask(scores, kept, 9)
    assert int(mask.sum()) == min(kept, 288) // pattern.size * pattern.size
    together = mask[:, pattern.units(72, 9)]
    assert together.all(2).eq(together.any(2)).all()
