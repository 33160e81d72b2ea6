"""Products of features are symmetric, and half of them is computed."""

from __future__ import annotations

import pytest
import torch

from nasprune.calibration.products import BLOCK, add_products, mirror


@pytest.mark.parametrize("features", [1, 7, BLOCK, BLOCK + 1, 3 * BLOCK - 5])
def test_they_are_those_of_one_product(features: int) -> None:
    generator = torch.Generator().manual_seed(features)
    chunks = [torch.randn(2, n, features, generator=generator, dtype=torch.float64) for n in (5, 1, 40)]
    total = torch.zeros(2, features, features, dtype=torch.float64)
    for chunk in chunks:
        add_products(total, chunk)
    rows = torch.cat(chunks, 1)
    torch.testing.assert_close(mirror(total), rows.mT @ rows)
    assert torch.equal(mirror(total), total), "a second time changes nothing"


def test_what_lies_below_the_bands_is_not_computed() -> None:
    total = torch.zeros(2 * BLOCK, 2 * BLOCK)
    add_products(total, torch.ones(3, 2 * BLOCK))
    assert not total[BLOCK:, :BLOCK].any()
    assert (total[:BLOCK] == 3).all()


def test_sums_may_be_more_exact_than_rows() -> None:
    total = torch.zeros(4, 4, dtype=torch.float64)
    add_products(total, torch.full((2, 4), 0.1))
    assert total.dtype == torch.float64
    assert abs(float(mirror(total)[3, 0]) - 0.02) < 1e-8
