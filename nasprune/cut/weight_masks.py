"""Zeros inside of weights: which elements of a cut network's parameters stay, the others being exactly zero."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.prune import custom_from_mask

from nasprune.cut.tensors import cut_positions
from nasprune.errors import PlanError
from nasprune.graph.model import ModelGraph

NOTHING: Mapping[str, Tensor] = {}


class WeightMasks(Mapping[str, Tensor]):
    """Name of a parameter of the cut network -> boolean, of the parameter's shape: `False` where it is exactly zero.

    Names are those within the traced part, as in a plan's signature. Read-only; equal where names and masks are.

    Raises:
        PlanError: a mask is no boolean tensor.
    """

    def __init__(self, masks: Mapping[str, Tensor] = NOTHING) -> None:
        for name, mask in masks.items():
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
                raise PlanError(f"the mask of {name!r} must be a boolean tensor, got {kind}; write weight != 0")
        self._masks = {name: mask.detach().cpu().contiguous() for name, mask in sorted(masks.items())}

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, WeightMasks) or list(self) != list(other):
            return NotImplemented if not isinstance(other, WeightMasks) else False
        return all(torch.equal(mask, other[name]) for name, mask in self.items())

    __hash__ = None  # type: ignore[assignment]  # as of any mapping

    def __repr__(self) -> str:
        return f"WeightMasks({self.zeros:,} zeros in {len(self)} parameters)"

    @property
    def zeros(self) -> int:
        """How many elements are held at zero."""
        return sum(int((~mask).sum()) for mask in self.values())

    def check(self, part: nn.Module) -> None:
        """Raises PlanError unless `part`, the cut one, has every parameter that is masked, of the mask's shape."""
        held = dict(part.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            if name not in held:
                raise PlanError(f"the plan masks {name!r}, which the cut model does not have as a parameter")
            if held[name].shape != mask.shape:
                raise PlanError(
                    f"the plan masks {name!r} by a mask of shape {list(mask.shape)}, the cut model's has shape "
                    f"{list(held[name].shape)}; masks belong to the network that the same plan cuts"
                )

    @torch.no_grad()
    def apply(self, part: nn.Module) -> None:
        """Sets what is masked to zero. Memory that parameters share with others is left as it is.

        Raises:
            PlanError: as `check`.
        """
        self.check(part)
        held = dict(part.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            held[name].data = held[name].data.masked_fill(~mask.to(held[name].device), 0)

    @torch.no_grad()
    def hold(self, part: nn.Module) -> None:
        """Sets what is masked to zero again, in place, as after a step of training."""
        held = dict(part.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            held[name].masked_fill_(~mask.to(held[name].device), 0)

    def below(self, scope: str | None) -> WeightMasks:
        """The same masks with the names that the whole network has for them. scope: of the plan."""
        return WeightMasks({f"{scope}.{name}": mask for name, mask in self.items()}) if scope else self

    def filled(self, part: nn.Module) -> str | None:
        """The first parameter that is not zero where it should be; `None` where all are.

        Raises:
            PlanError: as `check`.
        """
        self.check(part)
        held = dict(part.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            if bool(held[name].detach().cpu()[~mask].count_nonzero()):
                return name
        return None

    def register(self, part: nn.Module) -> None:
        """Gives `part` the names of `torch.nn.utils.prune`: `weight_orig` and `weight_mask` in the place of `weight`.

        For code that works with torch's own pruning; `torch.nn.utils.prune.remove` takes them off again.

        Raises:
            PlanError: as `check`.
        """
        self.check(part)
        for name, mask in self.items():
            path, _, leaf = name.rpartition(".")
            module = part.get_submodule(path)
            custom_from_mask(module, leaf, mask.to(getattr(module, leaf).device))  # type: ignore[no-untyped-call]

    def on_dense(self, part: nn.Module, graph: ModelGraph, keep: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """The same masks in the shapes of the dense `part`: `True` at all that is cut. keep: as in a plan.

        Raises:
            PlanError: a mask does not fit what stays of its parameter.
        """
        found = {}
        units, held = graph.unit_mask(keep), dict(part.named_parameters(remove_duplicate=False))
        for name, mask in self.items():
            places = cut_positions(held[name], graph.params.get(name, ()), units)
            if places.shape != mask.shape:
                raise PlanError(f"the mask of {name!r} has shape {list(mask.shape)}, what stays {list(places.shape)}")
            spread = torch.ones(held[name].numel(), dtype=torch.bool, device="cpu")
            spread[places.reshape(-1)] = mask.reshape(-1)
            found[name] = spread.reshape(held[name].shape)
        return found


def count_nonzeros(model: nn.Module) -> int:
    """Elements of all parameters that are not zero; a shared parameter counts once, buffers do not."""
    return sum(int(parameter.detach().count_nonzero()) for parameter in model.parameters())
