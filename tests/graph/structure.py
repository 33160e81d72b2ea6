"""What a tiny net with one structural difficulty is; `structures` has all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Structure:
    """A net, its input shape, how many groups must be free, and a word that a frozen group's reason must contain."""

    name: str
    make: Callable[[], nn.Module]
    free: int
    shape: tuple[int, ...] = (1, 3, 8, 8)
    reason: str | None = None


def into(nets: list[Structure]):
    """A decorator that adds a class of nets to the list."""

    def structure(free: int, *, shape: tuple[int, ...] = (1, 3, 8, 8), reason: str | None = None):
        def register(cls: type[nn.Module]) -> type[nn.Module]:
            nets.append(Structure(cls.__name__, cls, free, shape, reason))
            return cls

        return register

    return structure


def conv(c_in: int, c_out: int, size: int = 3, **options: int) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, padding=size // 2, **options)


class Net(nn.Module):
    """Head of most nets: global pooling and a linear classifier over `width` features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, 5)

    def classify(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))
