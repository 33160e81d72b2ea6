"""Point clouds of ten solids, drawn from their parametric surfaces: every machine can make them.

The shapes are those that mesh libraries have as primitives, and a few more. Points are drawn on the surface by the
seed, each solid with its own proportions, turned at random in space, shifted to the middle, scaled to the unit sphere,
and jittered, as training clouds are in Qi, Su, Mo, Guibas 2017, "PointNet", arXiv:1612.00593, section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from nasprune.data.splits import ArrayDataset, DataSplits, split

POINTS, PER_CLASS, JITTER = 256, 300, 0.02
Points = npt.NDArray[np.float64]
Generator = np.random.Generator


def pointclouds(seed: int, *, per_class: int = PER_CLASS, points: int = POINTS) -> DataSplits:
    """Clouds (3, points), 10 classes, made and split by `seed`."""
    draw = np.random.default_rng(seed)
    clouds = np.stack([_cloud(shape, draw, points) for shape in SHAPES.values() for _ in range(per_class)])
    labels = torch.arange(len(SHAPES), device="cpu").repeat_interleave(per_class)
    return split(
        "pointclouds",
        ArrayDataset(torch.from_numpy(clouds).float(), labels),
        seed=seed,
        labels=labels.tolist(),
        num_classes=len(SHAPES),
        normalisation="scaled to the unit sphere",
    )


def _cloud(shape: Callable[[Generator, int], Points], draw: Generator, points: int) -> Points:
    """(3, points): a solid turned, in the middle of the unit sphere, with noise."""
    turn, upper = np.linalg.qr(draw.normal(size=(3, 3)))
    cloud = shape(draw, points) @ (turn * np.sign(np.diag(upper)))
    cloud -= cloud.mean(axis=0)
    cloud /= np.linalg.norm(cloud, axis=1).max()
    return np.ascontiguousarray((cloud + JITTER * draw.normal(size=cloud.shape)).T)


def _sphere(draw: Generator, count: int) -> Points:
    found = draw.normal(size=(count, 3))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    return found


def _ellipsoid(draw: Generator, count: int) -> Points:
    return _sphere(draw, count) * draw.uniform((0.3, 0.5, 1.0), (0.5, 0.8, 1.0))


def _box(draw: Generator, count: int) -> Points:
    sides = draw.uniform(0.5, 1.0, 3)
    areas = sides.prod() / sides
    axis = draw.choice(3, count, p=areas / areas.sum())
    found = draw.uniform(-1, 1, (count, 3))
    found[np.arange(count), axis] = draw.choice((-1.0, 1.0), count)
    return found * sides


def _cylinder(draw: Generator, count: int) -> Points:
    height = draw.uniform(1.0, 3.0)
    side = draw.random(count) < height / (height + 1)  # areas 2πh and 2π
    radius = np.where(side, 1.0, np.sqrt(draw.random(count)))
    level = np.where(side, draw.uniform(-0.5, 0.5, count), draw.choice((-0.5, 0.5), count))
    return _ring(draw, radius, height * level)


def _cone(draw: Generator, count: int) -> Points:
    height = draw.uniform(1.0, 3.0)
    slant = np.hypot(1.0, height)
    side = draw.random(count) < slant / (slant + 1)
    radius = np.sqrt(draw.random(count))
    return _ring(draw, radius, np.where(side, height * (1 - radius), 0.0))


def _capsule(draw: Generator, count: int) -> Points:
    height = draw.uniform(1.0, 3.0)
    side = draw.random(count) < height / (height + 2)  # areas 2πh and 4π
    ball = _sphere(draw, count)
    ball[:, 2] += np.sign(ball[:, 2]) * height / 2
    return np.where(side[:, None], _ring(draw, np.ones(count), height * draw.uniform(-0.5, 0.5, count)), ball)


def _torus(draw: Generator, count: int) -> Points:
    tube = draw.uniform(0.2, 0.5)
    angles = draw.uniform(0, 2 * np.pi, 8 * count)
    dense = (1 + tube * np.cos(angles)) / (1 + tube)  # the outer side has more area
    angles = angles[draw.random(8 * count) < dense][:count]
    return _ring(draw, 1 + tube * np.cos(angles), tube * np.sin(angles))


def _pyramid(draw: Generator, count: int) -> Points:
    height = draw.uniform(1.0, 2.0)
    slant = np.hypot(1.0, height)  # four sides of area `slant`, a base of area 4
    found = draw.uniform(-1, 1, (count, 3))
    found[:, 2] = 0.0
    side = draw.random(count) < slant / (slant + 1)
    level = 1 - np.sqrt(draw.random(count))
    across = np.stack([draw.uniform(-1, 1, count), np.ones(count)], axis=1) * (1 - level)[:, None]
    face = draw.choice(4, count)
    across = np.where((face % 2)[:, None] == 1, across[:, ::-1], across) * np.where(face < 2, 1.0, -1.0)[:, None]
    return np.where(side[:, None], np.column_stack([across, height * level]), found)


def _annulus(draw: Generator, count: int) -> Points:
    inner = draw.uniform(0.2, 0.6)
    return _ring(draw, np.sqrt(draw.uniform(inner**2, 1, count)), np.zeros(count))


def _helix(draw: Generator, count: int) -> Points:
    turns, height = draw.uniform(2.0, 4.0), draw.uniform(1.5, 3.0)
    along = draw.random(count)
    middle = np.column_stack([np.cos(2 * np.pi * turns * along), np.sin(2 * np.pi * turns * along), height * along])
    return middle + 0.1 * _sphere(draw, count)


def _ring(draw: Generator, radius: Points, level: Points) -> Points:
    """Points at so much distance from an axis and at such levels, anywhere around it."""
    angles = draw.uniform(0, 2 * np.pi, len(radius))
    return np.column_stack([radius * np.cos(angles), radius * np.sin(angles), level])


SHAPES: dict[str, Callable[[Generator, int], Points]] = {
    "sphere": _sphere,
    "ellipsoid": _ellipsoid,
    "box": _box,
    "cylinder": _cylinder,
    "cone": _cone,
    "capsule": _capsule,
    "torus": _torus,
    "pyramid": _pyramid,
    "annulus": _annulus,
    "helix": _helix,
}
