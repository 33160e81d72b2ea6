"""A supernet and what was found in it: its choices, their architecture weights and prices, and smaller copies."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nasprune.cost.units import short
from nasprune.errors import InputError
from nasprune.space.choices import OpChoice
from nasprune.supernet.cut.leftovers import Loss, switch_off
from nasprune.supernet.cut.removal import Mixed, cut, is_alone, settle, sever, severed
from nasprune.supernet.find.aliases import follow
from nasprune.supernet.find.alpha_slots import Slot
from nasprune.supernet.find.choices import EdgeWeights, Kept, check_kept, edge_weight, everything
from nasprune.supernet.find.mixed import MixedOp
from nasprune.supernet.genotype.spaces import SupernetSpace
from nasprune.supernet.price.costs import PriceList
from nasprune.supernet.price.counting import Counter, Counts
from nasprune.supernet.price.gates import gated
from nasprune.supernet.price.times import Times


@dataclass(frozen=True)
class Logits:
    """The architecture weights of a choice.

    slots: where the net holds them, one for each tied mixed operation that has its own; empty where `values` is all
    that is known. columns: which of them belong to the candidates that are left. values: (columns,), detached.
    """

    slots: tuple[Slot, ...]
    columns: tuple[int, ...]
    values: Tensor

    def of(self, net: nn.Module) -> Tensor:
        """(columns,): taken from `net`, with gradients, where the net holds them; the first where there are several."""
        if not self.slots:
            return self.values
        held: Tensor = self.slots[0].read(net)
        return held[list(self.columns)]


NO_LOGITS = Logits((), (), torch.empty(0, device="cpu"))


@dataclass(frozen=True)
class Structure:
    """A supernet and what was found in it. Nothing here changes `net`; smaller supernets are copies.

    inputs: example inputs. mixed: its mixed operations. choices: those that decide together. prices: what candidates
    cost. logits: choice -> architecture weights, where they are known. space: the family of networks that it belongs
    to, where that is known. notes: what was found and why, for the user. edge_weights: gives a mixed operation's share
    among the edges into its node, where these are weighted. times: of candidates, where they were measured.
    """

    net: nn.Module
    inputs: tuple[Tensor, ...]
    mixed: tuple[MixedOp, ...]
    choices: tuple[OpChoice, ...]
    prices: PriceList = field(repr=False)
    logits: Mapping[str, Logits] = field(default_factory=dict, repr=False)
    space: SupernetSpace | None = None
    notes: tuple[str, ...] = ()
    edge_weights: EdgeWeights | None = None
    times: Times | None = field(default=None, repr=False)

    @property
    def counts(self) -> Counts:
        """What the supernet costs with all of its candidates, for one item."""
        return self.prices.of_kept(self.choices, everything(self.choices))

    def base_cost(self, counter: Counter) -> int:
        """Of the net without any candidate."""
        return self._times.base if counter == "latency" else self.prices.base[counter]

    def costs_of(self, choice: OpChoice, counter: Counter) -> list[int]:
        """For each candidate of a choice its cost over all tied mixed operations."""
        if counter == "latency":
            return list(self._times.of_choice(choice))
        return [counts[counter] for counts in self.prices.of_choice(choice)]

    def cost_of(self, counter: Counter, kept: Kept | None = None) -> int:
        """Of the net with the `kept` candidates only; with all of them where none are given."""
        kept = everything(self.choices) if kept is None else kept
        if counter == "latency":
            return self._times.of_kept(self.choices, kept)
        return self.prices.of_kept(self.choices, kept)[counter]

    @property
    def _times(self) -> Times:
        if self.times is None:
            raise InputError("the times of the candidates were not measured; give a budget of time")
        return self.times

    def gated(self, gates: Mapping[str, Tensor]) -> AbstractContextManager[None]:
        """Inside, the outputs of the candidates are multiplied by `gates[choice]` (ops,); nothing stays behind."""
        return gated(self.net, self.mixed, self.choices, gates)

    def logits_in(self, net: nn.Module, choice: OpChoice) -> Tensor | None:
        """The architecture weights (ops,) of a choice as `net`, this supernet or a copy, holds them."""
        known = self.logits.get(choice.name)
        return known.of(net) if known is not None else None

    def shares_in(self, net: nn.Module, choice: OpChoice) -> Tensor | None:
        """The shares of the candidates in the mixture (ops,), summing to one; `None` where they are unknown."""
        logits = self.logits_in(net, choice)
        if logits is not None:
            return logits.detach().softmax(0)
        seen = self.mixed[choice.places[0]].weights
        if seen is None:
            return None
        shares = torch.tensor(seen, device="cpu")
        return shares / shares.sum()

    def edge_weight_in(self, net: nn.Module, choice: OpChoice) -> float | None:
        """The share of the first of the choice's edges among those into its node, as `net` has it; `None`: unknown."""
        if self.edge_weights is None:
            return None
        return edge_weight(net, self.mixed[choice.places[0]], self.edge_weights)

    def keep(self, kept: Mapping[str, Sequence[str | int]]) -> Structure:
        """A smaller supernet with only the candidates `kept`, by name or number, and their weights; still trainable.

        Choices that are not named keep everything. Mixed operations that then read only zeros, or that nobody listens
        to any more, go altogether; an empty list takes all candidates of a choice away.

        Raises:
            InputError: an unknown choice or candidate, or the output no longer depends on the input.
        """
        numbers = {**everything(self.choices), **{name: self._numbers(name, some) for name, some in kept.items()}}
        return self._kept(numbers)

    def _numbers(self, name: str, kept: Sequence[str | int]) -> tuple[int, ...]:
        choice = next((choice for choice in self.choices if choice.name == name), None)
        if choice is None:
            raise InputError(f"there is no choice {name!r}; choices: {[choice.name for choice in self.choices][:8]}")
        unknown = [op for op in kept if op not in choice.ops and op not in range(len(choice.ops))]
        if unknown:
            raise InputError(f"choice {name!r} has the candidates {list(choice.ops)}, not {unknown}")
        return tuple(sorted({choice.ops.index(op) if isinstance(op, str) else op for op in kept}))

    def _kept(self, kept: Kept) -> Structure:
        check_kept(self.choices, {name: some for name, some in kept.items() if some})
        small = cut(self.net, self.mixed, self.choices, kept)
        settle(small, self.inputs)
        gone = self._sever(small, kept)
        notes = switch_off(small, self.inputs, self._losses(kept, gone))
        follow(small, self.net, self.mixed)
        stay_at = {number: kept[choice.name] for choice in self.choices for number in choice.places}
        left = [number for number in range(len(self.mixed)) if number in stay_at and number not in gone]
        numbers = {old: new for new, old in enumerate(left)}
        choices, logits = [], {}
        for choice in self.choices:
            some = kept[choice.name]
            at = tuple(numbers[number] for number in choice.places if number in numbers)
            if at:
                zeros = tuple(new for new, k in enumerate(some) if k in choice.zeros)
                choices.append(OpChoice(choice.name, tuple(choice.ops[k] for k in some), at, zeros))
                if known := self._logits_left(small, choice, some):
                    logits[choice.name] = known
        prices = PriceList(
            self.prices.base + Counts(params=self._new_weights(stay_at, left)),
            tuple(tuple(self.prices.places[number][k] for k in stay_at[number]) for number in left),
        )
        places = self.times.places if self.times is not None else ()
        left_times = tuple(tuple(places[number][k] for k in stay_at[number]) for number in left if places)
        return replace(
            self,
            net=small,
            mixed=tuple(_shrunk(self.net, self.mixed[number], stay_at[number]) for number in left),
            choices=tuple(choices),
            prices=prices,
            logits=logits,
            notes=(*self.notes, *notes),
            times=replace(self.times, places=left_times) if self.times is not None else None,
        )

    def _logits_left(self, small: nn.Module, choice: OpChoice, some: Sequence[int]) -> Logits | None:
        """The architecture weights of a choice in the smaller net: those that the user gave, or of a `Mixed`."""
        known = self.logits.get(choice.name)
        places = [self.mixed[number] for number in choice.places]
        if not is_alone(self.net, places[0]):
            columns = tuple(known.columns[k] for k in some) if known is not None else ()
            return Logits(known.slots, columns, known.values[list(some)]) if known is not None else None
        own = [one.path for one in places if isinstance(small.get_submodule(one.path), Mixed)]
        if not own:
            return None
        slots = tuple(Slot(path, "alpha", None, ()) for path in own)
        values = known.values[list(some)] if known is not None else torch.zeros(len(some), device="cpu")
        if places[0].single_path:  # a new `Mixed`
            with torch.no_grad():
                for slot in slots:
                    slot.read(small).copy_(values)
        return Logits(slots, tuple(range(len(some))), values)

    def _new_weights(self, stay_at: Mapping[int, Sequence[int]], left: Collection[int]) -> int:
        """Parameters that come with a `Mixed` in the place of what ran one candidate at a time, less those that go."""
        alone = [number for number in stay_at if is_alone(self.net, self.mixed[number])]
        new = sum(len(stay_at[number]) for number in alone if number in left and len(stay_at[number]) > 1)
        return new - _own_parameters(self.net, {self.mixed[number].path: self.mixed[number].ops for number in alone})

    def _sever(self, small: nn.Module, kept: Kept) -> set[int]:
        """Takes out of `small` what plays no part any more, until nothing else does; the numbers of what went."""
        gone = {number for choice in self.choices if not kept[choice.name] for number in choice.places}
        if not gone:
            return gone
        while True:
            found = [number for number in severed(small, self.mixed, self.inputs) if number not in gone]
            if not found:
                break
            for number in found:
                sever(small, self.mixed[number])
            gone.update(found)
        if len(gone) == len(self.mixed):
            raise InputError("nothing connects the output with the input any more; keep more candidates")
        return gone

    def _losses(self, kept: Kept, severed: Collection[int]) -> list[Loss]:
        """What choices lose that still mix afterwards. severed: the mixed operations that went altogether."""
        found = []
        for choice in self.choices:
            gone = tuple(k for k in range(len(choice.ops)) if k not in kept[choice.name])
            places = [self.mixed[number] for number in choice.places if number not in severed]
            if gone and places and not is_alone(self.net, places[0]):
                known = self.logits.get(choice.name, NO_LOGITS)
                columns = tuple(known.columns[k] for k in gone) if known.slots else ()
                found.append(Loss(choice.name, tuple(one.ops for one in places), gone, known.slots, columns))
        return found

    def summary(self) -> str:
        """What was found, one line per choice: name, how often it occurs, its candidates and what each costs."""
        counts = self.counts
        lines = [
            f"{len(self.mixed)} mixed operations in {len(self.choices)} choices; "
            f"{short(counts.fvcore, 'FLOPs')} (fvcore), {short(counts.macs, 'MACs')}, {short(counts.params, 'params')}"
        ]
        for choice in self.choices:
            costs = self.prices.of_choice(choice)
            first = self.mixed[choice.places[0]]
            ops = ", ".join(f"{op} {short(cost.fvcore)}" for op, cost in zip(choice.ops, costs, strict=True))
            lines.append(f"{choice.name}  x{len(choice.places)}  {ops}  ({first.found_by})")
        return "\n".join([*lines, *self.notes])


def _own_parameters(net: nn.Module, places: Mapping[str, Sequence[str]]) -> int:
    """Elements of parameters that only the modules at these paths hold, beside those of the candidates in them."""
    inside = [value for path in places for value in net.get_submodule(path).parameters()]
    kept = {id(value) for ops in places.values() for op in ops for value in net.get_submodule(op).parameters()}
    for path, module in net.named_modules(remove_duplicate=False):
        if not any(f"{path}.".startswith(f"{place}.") for place in places):
            kept.update(id(value) for value in module.parameters(recurse=False))
    return sum(value.numel() for value in {id(value): value for value in inside}.values() if id(value) not in kept)


def _shrunk(net: nn.Module, mixed: MixedOp, kept: Sequence[int]) -> MixedOp:
    """The mixed operation of `net` after `removal.cut`."""
    names = tuple(mixed.names[k] for k in kept)
    ops = tuple(mixed.ops[k] for k in kept)
    weights = tuple(mixed.weights[k] for k in kept) if mixed.weights is not None else None
    if mixed.single_path:
        weights = tuple(1 / len(kept) for _ in kept)
    if is_alone(net, mixed):
        ops = tuple(f"{mixed.path}.candidates.{name.replace('.', '_')}" for name in names)
        ops = ops if len(kept) > 1 else (mixed.path,)
    zeros = tuple(new for new, k in enumerate(kept) if k in mixed.zeros)
    return replace(mixed, ops=ops, names=names, weights=weights, single_path=False, zeros=zeros)
