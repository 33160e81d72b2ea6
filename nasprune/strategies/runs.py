"""Which layers hooks can be put on: those that run whenever their weight is read."""

from __future__ import annotations

from torch import nn

from nasprune.graph.program import Program, module_stack

LAYERS = (
    *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


def running(part: nn.Module, program: Program) -> dict[int, tuple[nn.Module, ...]]:
    """By the identity of a weight: the linear and convolution layers that run with it, where nothing else reads it.

    torch's attention, and code that calls functions, read the weights of layers that do not run.

    part: the traced model, or what the graph's scope names. program: that of `part`.
    """
    holders: dict[int, list[nn.Module]] = {}
    for module in part.modules():
        if isinstance(module, LAYERS):
            holders.setdefault(id(module._parameters.get("weight")), []).append(module)
    found = {}
    for weight, reads in _reads(part, program).items():
        ran = tuple(module for module in holders.get(weight, ()) if any(id(module) in inside for inside in reads))
        if all(any(id(module) in inside for module in ran) for inside in reads):
            found[weight] = ran
    return found


def _reads(part: nn.Module, program: Program) -> dict[int, list[set[int]]]:
    """By the identity of a parameter: for each operation that reads it, the modules that were running."""
    held, live = dict(part.named_parameters(remove_duplicate=False)), set(program.live)
    found: dict[int, list[set[int]]] = {}
    for node in program.nodes:
        name = program.params.get(node.name) if node.op == "placeholder" else None
        for user in node.users if name in held else ():
            if user in live:
                inside = {id(part.get_submodule(path.partition("@")[0])) for path in module_stack(user)}
                found.setdefault(id(held[str(name)]), []).append(inside)
    return found
