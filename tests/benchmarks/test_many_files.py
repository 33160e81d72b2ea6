"""The folder and the network of the benchmark are what it says they are."""

from __future__ import annotations

import torch

from benchmarks.many_files import pictures, vgg_like
from nasprune.data import load_data


def test_pictures_lie_in_ten_classes_and_a_head_reads_25088_features(tmp_path):
    pictures(tmp_path, 40)
    data = load_data(f"imagefolder:{tmp_path / 'data'}", size=224)
    net = vgg_like().eval()
    assert (data.num_classes, net[10].in_features) == (10, 25_088)
    with torch.no_grad():
        assert net(data.train[0][0][None]).shape == (1, 10)
