"""What `nasprune.search`, `save`, `load` and `search_space` say to arguments of another type than they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import nasprune
from nasprune.criteria.l2 import L2
from nasprune.errors import InputError
from tests.nets import EXAMPLE, TinyResNet

IMAGE = EXAMPLE

WRONG = {
    "trials": ({"trials": "10"}, "`trials` must be a whole number, got the str '10'; write for example trials=100"),
    "seed": ({"seed": 1.5}, "`seed` must be a whole number, got the float 1.5"),
    "time": ({"time_limit": "1h"}, "`time_limit` must be a number, got the str '1h'"),
    "class": ({"criterion": L2}, "`criterion` must be a name, got the class L2; .*'nasprune.criteria.l2:L2'"),
    "space": ({"space": 8}, "`space` must be a name, got the int 8"),
    "include": ({"include": 3}, r"`include` must be a name or a list of names, got the int 3"),
    "scope": ({"scope": 3}, "`scope` must be the path of a submodule"),
    "options": ({"space_options": [8]}, "`space_options` must be a dict of options, got a list"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_arguments_of_another_type_are_named(options, message):
    with pytest.raises(InputError, match=message):
        nasprune.search(TinyResNet(), IMAGE, "60%", **options)


def test_a_plain_string_is_one_glob():
    result = nasprune.search(TinyResNet(), IMAGE, "90%", include="b*", trials=3)
    assert all(group.kept == group.width for group in result.report.groups if not group.name.startswith("b"))


def test_a_name_in_the_place_of_a_graph_lists_the_options():
    with pytest.raises(InputError, match=r"got the str 'widths'; .* its options are divisor: int \| None = None; min_"):
        nasprune.search_space("widths")


def test_images_with_channels_last_are_told_how_to_turn():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
    images = np.zeros((20, 8, 8, 3), dtype=np.float32), np.zeros(20, dtype=np.int64)
    with pytest.raises(InputError, match=r"its channels come last: give images.transpose\(0, 3, 1, 2\)"):
        nasprune.search(net, torch.zeros(1, 3, 8, 8), "60%", data=images)
    with pytest.raises(InputError, match="the example input is float32, data 'data' gives uint8"):
        nasprune.search(net, torch.zeros(1, 3, 8, 8), "60%", data=(np.zeros((20, 3, 8, 8), np.uint8), images[1]))


def test_save_and_load_name_what_they_were_given(tmp_path):
    result = nasprune.search(TinyResNet(), IMAGE, "60%", trials=3)
    for call, message in (
        (lambda: nasprune.save(result.model, tmp_path), "`result` must be what `nasprune.search` returned"),
        (lambda: nasprune.save(str(tmp_path), result), "`result` must be what .* got the str"),
        (lambda: nasprune.save(result, result.model), "`folder` must be a path, got a TinyResNet"),
        (lambda: nasprune.save(result, tmp_path, model=TinyResNet()), "is of shape .*, in result.model of shape"),
        (lambda: nasprune.load(TinyResNet(), tmp_path), "`folder` must be a path, got a TinyResNet"),
        (lambda: nasprune.load(tmp_path, str(tmp_path)), "`model` must be a torch.nn.Module, got the str"),
    ):
        with pytest.raises(InputError, match=message):
            call()
    assert not list(tmp_path.iterdir())
