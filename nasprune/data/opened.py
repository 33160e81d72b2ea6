"""Items as other libraries give them, as (image, label): rows of a table by name, images as PIL has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from nasprune.errors import InputError

IMAGES = ("images", "image", "inputs", "x", "img", "pixel_values", "jpg", "jpeg", "png", "webp")
LABELS = ("labels", "label", "targets", "masks", "y", "cls", "fine_label")

Open = Callable[[Any], Tensor]


class Opened(Dataset[Any]):
    """The items of a data set, with rows as pairs and PIL images as tensors; nothing is read before it is asked for.

    open: what makes a tensor of a PIL image.
    """

    def __init__(self, dataset: Any, open: Open, name: str) -> None:
        self.dataset, self._open, self._name = dataset, open, name

    def __getitem__(self, index: int) -> Any:
        return opened(self.dataset[index], self._open, self._name)

    def __len__(self) -> int:
        return len(self.dataset)


def opened(item: Any, open: Open, name: str) -> Any:
    """One item. Raises InputError for a row in which the image is not found by its name."""
    if isinstance(item, Mapping):
        item = _pair(item, name)
    if isinstance(item, tuple | list):
        return (_tensor(item[0], open), *item[1:]) if item else item
    return _tensor(item, open)


def _pair(row: Mapping[Any, Any], name: str) -> tuple[Any, Any]:
    """(image, label) of a row; its other columns are not read."""
    images, labels = ([key for key in row if key in names] for names in (IMAGES, LABELS))
    if len(images) != 1 or len(labels) > 1:
        raise InputError(
            f"data {name!r}: its items have the columns {', '.join(map(str, row)) or 'none'}, and it is not clear "
            "which are the image and the label; rename them to 'image' and 'label', or give items (image, label)"
        )
    return row[images[0]], row[labels[0]] if labels else None


def _tensor(image: Any, open: Open) -> Any:
    from PIL.Image import Image

    return open(image) if isinstance(image, Image) else image
