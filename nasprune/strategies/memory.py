"""What a strategy remembers, as text and tensors, so that a training that was killed goes on with it.

A strategy's memory is its attributes: numbers, strings, tensors, plans, random generators, what has a `state_dict` such
as optimizers and modules of its own, objects of classes in its own file, and lists, tuples, sets and dicts of these.
What belongs to the network or to the task (modules, parameters, groups, slots) is written by its name and is the live
one again when it is read. Functions, such as hooks, are those that the strategy has when it is made anew, and what it
learns stays the same tensor, since an optimizer may hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from random import Random
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nasprune.cut.plan import PrunePlan
from nasprune.cut.weight_masks import WeightMasks
from nasprune.errors import PluginError
from nasprune.strategies.contract import Strategy
from nasprune.strategies.task import Task
from nasprune.train.partners import Memory

PLAIN = (bool, int, float, str, type(None))
SEVERAL = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


def written(strategy: Strategy, task: Task, name: str) -> Memory:
    """All that `strategy` remembers; tensors are copies on the CPU.

    Raises:
        PluginError: an attribute cannot be written.
    """
    shared = {id(one): key for key, one in _shared(strategy, task).items()}
    writer = _Writer(shared, type(strategy).__module__)
    words = {}
    for attribute, value in vars(strategy).items():
        try:
            words[attribute] = writer.of(value)
        except TypeError as error:
            raise PluginError(
                f"strategy `{name}` keeps {error} in `{attribute}`, which cannot be written, so a training that is "
                "killed could not go on; keep numbers, strings, tensors, plans, generators, or what has a state_dict, "
                "or train without `out`"
            ) from error
    return Memory(json.dumps({"attributes": words, "released": not task.hooks.are_there}), writer.tensors)


def read(memory: Memory, strategy: Strategy, task: Task) -> None:
    """Makes `strategy`, which was made anew for the same task, remember what was written."""
    reader = _Reader(_shared(strategy, task), memory.tensors, next(task.model.parameters()).device)
    own = vars(strategy)
    words = json.loads(memory.words)
    found = {name: reader.of(entry, own.get(name)) for name, entry in words["attributes"].items()}
    own.clear()
    own.update(found)
    if words["released"]:
        task.release()


def _shared(strategy: Strategy, task: Task) -> dict[str, object]:
    """Name -> what is not the strategy's own."""
    found: dict[str, object] = {
        "strategy": strategy,
        "task": task,
        "graph": task.graph,
        "problem": task.problem,
        "hooks": task.hooks,
    }
    for kind, members in (
        ("module", task.model.named_modules()),
        ("parameter", task.model.named_parameters()),
        ("buffer", task.model.named_buffers()),
    ):
        found |= {f"{kind} {name}": one for name, one in members}
    for group in task.groups:
        found[f"group {group.name}"] = group
        found |= {f"slots {number} of {group.name}": one for number, one in enumerate(task.slots(group))}
        found |= {f"scale {number} of {group.name}": one for number, one in enumerate(task.scales(group))}
    found |= {f"block {block.name}": block for block in task.blocks}
    found |= {f"weight {weight.name}": weight for weight in task.weights}
    return found


@dataclass
class _Writer:
    """shared: id -> name. home: the module of the strategy. tensors: what was met so far, by number."""

    shared: Mapping[int, str]
    home: str
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def of(self, value: Any) -> Any:
        """For JSON. Raises TypeError, with the kind of it, where it is nothing that can be written."""
        if isinstance(value, PLAIN):
            return value
        if id(value) in self.shared:
            return {"shared": self.shared[id(value)]}
        if isinstance(value, FunctionType):
            return {"function": value.__qualname__}
        if isinstance(value, Tensor):
            away = value.device.type != "cpu"
            return {"tensor": self._kept(value), "grad": value.requires_grad and value.is_leaf, "away": away}
        if isinstance(value, np.ndarray):
            return {"array": self._kept(torch.from_numpy(value))}
        if isinstance(value, torch.Generator):
            return {"generator": self._kept(value.get_state()), "away": value.device.type != "cpu"}
        if isinstance(value, Random):
            return {"random": self.of(value.getstate())}
        if isinstance(value, PrunePlan):
            plain = replace(value, masks=WeightMasks()).to_json()
            return {"plan": plain, "masks": self.of(dict(value.masks))}
        if isinstance(value, dict):
            return {"dict": [[self.of(key), self.of(one)] for key, one in value.items()]}
        for name, kind in SEVERAL.items():
            if type(value) is kind:
                return {name: [self.of(one) for one in value]}
        if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
            return {"state": self.of(value.state_dict())}
        if hasattr(value, "__dict__") and type(value).__module__ == self.home:
            return {"object": [[name, self.of(one)] for name, one in vars(value).items()]}
        raise TypeError(f"a {type(value).__name__}")

    def _kept(self, value: Tensor) -> str:
        number = str(len(self.tensors))
        self.tensors[number] = value.detach().cpu().clone().contiguous()
        return number


@dataclass(frozen=True)
class _Reader:
    shared: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    device: torch.device

    def of(self, entry: Any, now: Any) -> Any:
        """The value. now: what stands there since the strategy was made anew, or `None`."""
        if isinstance(entry, PLAIN):
            return entry
        kind = next(iter(entry))
        inner = entry[kind]
        home = self.device if entry.get("away") else torch.device("cpu")
        if kind == "shared":
            return self.shared[inner]
        if kind == "function":
            return now
        if kind == "tensor":
            value = self.tensors[inner].to(home, copy=True)
            if not _is_learned(now, value):
                return value.requires_grad_(entry["grad"])
            with torch.no_grad():
                now.copy_(value)
            return now
        if kind == "array":
            return self.tensors[inner].numpy().copy()
        if kind == "generator":
            generator = torch.Generator(home)
            generator.set_state(self.tensors[inner])
            return generator
        if kind == "random":
            drawn = Random()
            drawn.setstate(self.of(inner, None))
            return drawn
        if kind == "plan":
            masks = WeightMasks(self.of(entry["masks"], None))
            return replace(PrunePlan.from_json(inner), masks=masks)
        if kind == "dict":
            before = now if isinstance(now, dict) else {}
            pairs = [(self.of(key, None), one) for key, one in inner]
            return {key: self.of(one, before.get(key)) for key, one in pairs}
        if kind == "object":
            before = vars(now)
            before.update({name: self.of(one, before.get(name)) for name, one in inner})
            return now
        if kind == "state":
            now.load_state_dict(self.of(inner, None))
            return now
        own = now if isinstance(now, (list, tuple)) and len(now) == len(inner) else [None] * len(inner)
        return SEVERAL[kind](self.of(one, there) for one, there in zip(inner, own, strict=True))


def _is_learned(now: Any, value: Tensor) -> bool:
    """Whether the strategy made anew has a tensor there that takes gradients, and the value fits."""
    return isinstance(now, Tensor) and now.requires_grad and now.is_leaf and now.shape == value.shape
