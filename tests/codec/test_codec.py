"""The codec: codes near their bound, exact ways back, damaged files refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import nasprune
from nasprune.codec.compressed import sizes_in
from nasprune.codec.gaps import gaps_of, positions_of
from nasprune.codec.huffman import check, decode, encode, lengths_of
from nasprune.codec.layers import decoded, encoded
from nasprune.codec.sharing import shared
from nasprune.errors import InputError

SYMBOLS = st.lists(st.integers(0, 11), min_size=1, max_size=300)


@settings(deadline=None, max_examples=60)
@given(SYMBOLS, st.integers(0, 40))
def test_huffman_is_exact_and_within_a_bit_of_the_entropy(values: list[int], often: int) -> None:
    given_ = np.array(values + [3] * (often * often), dtype=np.int64)
    counts = np.bincount(given_, minlength=12)
    lengths = lengths_of(counts)
    check(lengths)
    shares = counts[counts > 0] / counts.sum()
    entropy = float(-(shares * np.log2(shares)).sum())
    assert entropy - 1e-9 <= (counts * lengths).sum() / counts.sum() < entropy + 1
    packed = encode(given_, lengths)
    assert len(packed) == -(-int((counts * lengths).sum()) // 8)
    assert np.array_equal(decode(packed, lengths, len(given_), int(given_[0])), given_)


def test_huffman_reads_across_chunks(monkeypatch) -> None:
    monkeypatch.setattr("nasprune.codec.huffman.CHUNK", 64)
    values = np.random.default_rng(0).geometric(0.3, 2000).clip(max=30)
    lengths = lengths_of(np.bincount(values, minlength=31))
    assert np.array_equal(decode(encode(values, lengths), lengths, 2000), values)
    for count in (1999 - 8, 2001 + 8):
        with pytest.raises(ValueError, match="words, there are"):
            decode(encode(values, lengths), lengths, count)


@settings(deadline=None, max_examples=60)
@given(st.sets(st.integers(0, 500), max_size=80), st.integers(1, 8))
def test_gaps_lead_back_to_positions_with_as_few_fillers_as_can_be(places: set[int], bits: int) -> None:
    positions = np.array(sorted(places), dtype=np.int64)
    gaps, owners = gaps_of(positions, bits)
    assert (gaps < 2**bits).all()
    assert np.array_equal(positions_of(gaps)[owners >= 0], positions)
    skipped = np.diff(positions, prepend=-1) - 1
    assert (owners < 0).sum() == (skipped // 2**bits).sum()


def test_shared_values_are_a_fixed_point_of_k_means() -> None:
    values = np.random.default_rng(0).normal(size=3000)
    centres, numbers = shared(values, 4)
    assert len(centres) <= 16
    assert np.array_equal(numbers, np.abs(values[:, None] - centres).argmin(1))
    assert centres == pytest.approx([values[numbers == k].mean() for k in range(len(centres))])
    few, of = shared(np.array([2.0, -1.0, 2.0]), 4)
    assert np.array_equal(few[of], [2.0, -1.0, 2.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_a_weight_comes_back_with_its_zeros(dtype: torch.dtype, share: float) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(40, 50) * (torch.rand(40, 50) < share)).to(dtype)
    layer = encoded(weight, 5, 4)
    back = decoded(layer)
    assert (back.dtype, back.shape) == (dtype, weight.shape)
    assert torch.equal(back != 0, weight != 0)
    assert len(back.unique()) <= 33
    again = decoded(encoded(back, 5, 4))
    assert torch.equal(again, back)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(self.norm(self.conv(x)).mean((2, 3))))


def test_a_network_and_its_file(tmp_path) -> None:
    torch.manual_seed(0)
    net = Tied()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    done = nasprune.compress(net, tmp_path / "deep" / "small.safetensors", bits=2)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.manual_seed(1)
    back = nasprune.decompress(done.path, Tied())
    for name, value in done.model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value)
    assert torch.equal(back.norm.weight, net.norm.weight)
    assert len(back.conv.weight.unique()) <= 4
    assert 0 < done.error < 0.5
    assert done.sizes == sizes_in(done.path)
    assert done.sizes.file == done.path.stat().st_size
    assert [layer.name for layer in done.sizes.layers] == ["conv.weight", "first.weight"]


def test_sparse_and_shared_is_small(tmp_path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(500, 200)
    with torch.no_grad():
        net.weight[torch.rand_like(net.weight) < 0.92] = 0
    done = nasprune.compress(net, tmp_path / "small")
    (layer,) = done.sizes.layers
    assert layer.nonzeros == int(net.weight.count_nonzero())
    assert layer.bits_per_weight < 0.08 * (5 + 5) + 0.1
    assert done.sizes.ratio > 25


def test_damaged_files_are_refused(tmp_path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "net"
    nasprune.compress(nn.Linear(30, 20), path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        kind, at = rng.integers(3), int(rng.integers(len(whole)))
        damaged = {0: whole[:at], 1: whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], 2: whole + b"x"}[int(kind)]
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="give a file that nasprune compress wrote"):
            nasprune.decompress(path, nn.Linear(30, 20))
    path.write_bytes(whole)
    with pytest.raises(InputError, match="has shape"):
        nasprune.decompress(path, nn.Linear(20, 30))


def test_what_is_wrong_is_said(tmp_path) -> None:
    for options, message in (({"bits": 0}, r"`bits` must lie in 1\.\.16"), ({"gap_bits": "5"}, "`gap_bits` must be")):
        with pytest.raises(InputError, match=message):
            nasprune.compress(nn.Linear(2, 2), tmp_path / "net", **options)
    broken = nn.Linear(2, 2)
    with torch.no_grad():
        broken.weight[0, 0] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        nasprune.compress(broken, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_weights_of_something_else_are_not_replaced(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"of a run")
    with pytest.raises(nasprune.InputError, match="is there already and is no compressed network"):
        nasprune.compress(nn.Linear(4, 4), weights)
    assert weights.read_bytes() == b"of a run"
    for _ in range(2):  # its own may be replaced
        nasprune.compress(nn.Linear(4, 4), tmp_path / "small.safetensors")
