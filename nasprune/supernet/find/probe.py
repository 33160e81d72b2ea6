"""Running a net to see what its modules read and give, and which gradients reach them; nothing stays behind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from nasprune.common.randomness import seed_all, states
from nasprune.common.untouched import untouched
from nasprune.errors import InputError
from nasprune.supernet.find.mixture import NotMixedError

Inputs = tuple[Tensor, ...]
ROUNDING = 1e-4
"""How far what a module hands on may be from what it was given, as by a share that is nearly one."""


@dataclass(frozen=True)
class Call:
    """One call of a module: its first argument and the shape of what it gave; `None` for no tensor."""

    received: Tensor | None
    output: tuple[int, ...] | None


def run(net: nn.Module, inputs: Inputs) -> Any:
    """What the net gives.

    Raises:
        InputError: it fails on the inputs.
    """
    try:
        return net(*inputs)
    except Exception as error:
        shapes = ", ".join(str(list(value.shape)) for value in inputs)
        raise InputError(
            f"the net does not run in eval mode on inputs of shape {shapes}: {_first_line(error)}; "
            "check the inputs, and what the net expects to be set before a forward pass"
        ) from error


def observe(net: nn.Module, inputs: Inputs, seed: int | None = None) -> tuple[dict[str, list[Call]], bool]:
    """The calls of every module that runs: path -> calls in order; and whether the net draws random numbers.

    seed: of what it draws; `None` leaves the random states as they are.

    A module that gives back its very input gives an alias here, so that a chain of identities reads no tensor twice.
    """
    calls: dict[str, list[Call]] = {}

    def watch(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            received = args[0] if args else next(iter(kwargs.values()), None)
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            calls.setdefault(path, []).append(Call(received if isinstance(received, Tensor) else None, shape))
            return output.detach() if output is received and isinstance(output, Tensor) else output

        return hook

    with untouched(net), torch.no_grad(), ExitStack() as stack:
        for path, module in net.named_modules():
            stack.callback(module.register_forward_hook(watch(path), with_kwargs=True).remove)
        if seed is not None:
            seed_all(seed, net)
        before = states(net)
        run(net, inputs)
        drawn = states(net) != before
    return calls, drawn


def same_outputs(net: nn.Module, inputs: Inputs, pairs: Sequence[tuple[str, str]]) -> list[bool]:
    """For each pair of an outer module and one inside it: whether the outer gives what the inner gives, whatever it is.

    Noise takes the place of that, since a ReLU, for one, leaves what another ReLU gave as it is.
    """
    if not pairs:
        return []
    inner: dict[str, Tensor] = {}
    same = dict.fromkeys(pairs, False)
    generator = torch.Generator().manual_seed(0)

    def keep(path: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            noise = torch.randn(output.shape, generator=generator, device="cpu").to(output)
            inner[path] = noise.clone()
            return noise

        return hook

    def compare(pair: tuple[str, str]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            kept = inner.get(pair[1])
            fits = isinstance(output, Tensor) and kept is not None and output.shape == kept.shape
            same[pair] = fits and torch.allclose(output, kept, rtol=ROUNDING, atol=ROUNDING)  # type: ignore[arg-type]

        return hook

    with untouched(net), torch.no_grad(), ExitStack() as stack:
        for pair in pairs:
            stack.callback(net.get_submodule(pair[1]).register_forward_hook(keep(pair[1])).remove)
            stack.callback(net.get_submodule(pair[0]).register_forward_hook(compare(pair)).remove)
        run(net, inputs)
    return [same[pair] for pair in pairs]


def output_shapes(modules: Sequence[nn.Module], received: Tensor) -> list[tuple[int, ...] | str]:
    """What each module gives for `received`: a shape, or in words why none. Call it where the net is `untouched`."""
    shapes: list[tuple[int, ...] | str] = []
    with torch.no_grad():
        for module in modules:
            try:
                output = module(received.clone())
            except Exception as error:
                shapes.append(f"an error, {_first_line(error)}")
            else:
                shapes.append(tuple(output.shape) if isinstance(output, Tensor) else "no tensor")
    return shapes


def gives_zeros(module: nn.Module, like: Tensor) -> bool:
    """Whether a module gives zeros for noise in the shape of `like`. Call it where the net is `untouched`.

    One with parameters may do so by chance, when all is below a ReLU, so it never counts.
    """
    if not like.is_floating_point() or next(module.parameters(), None) is not None:
        return False
    noise = torch.randn(like.shape, generator=torch.Generator().manual_seed(0), device="cpu").to(like)
    with torch.no_grad():
        try:
            output = module(noise)
        except Exception:
            return False
    return isinstance(output, Tensor) and not bool(output.any())


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"


Measure = Callable[[float], Mapping[str, Tensor]]


@contextmanager
def backward(
    net: nn.Module, inputs: Inputs, paths: Sequence[str], *, normalise: bool = False, seed: int | None = None
) -> Iterator[Measure]:
    """One forward pass; inside, `measure(scale)` gives gradients with respect to the modules' outputs, by path.

    They are those of `scale` times a fixed random projection of all that the net gives; where none arrives, zeros.
    normalise: batch norms use the statistics of this batch, so that signals stay of one size in an untrained net.
    seed: of what the net draws at random; `None` leaves the random states as they are.
    `measure` raises NotMixedError where the net cannot be differentiated.
    """
    edges: dict[str, tuple[GradientEdge, Tensor]] = {}

    def tap(path: str) -> Callable[..., Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.is_floating_point():
                return output
            tapped = output + torch.zeros((), dtype=output.dtype, device=output.device, requires_grad=True)
            if tapped.requires_grad:
                edges[path] = (get_gradient_edge(tapped), tapped.detach())
            return tapped

        return hook

    with untouched(net), torch.inference_mode(False), torch.enable_grad():
        for module in net.modules():
            module.training = normalise and isinstance(module, nn.modules.batchnorm._BatchNorm)
        with ExitStack() as stack:
            for path in paths:
                stack.callback(net.get_submodule(path).register_forward_hook(tap(path)).remove)
            if seed is not None:
                seed_all(seed, net)
            loss = _projection(run(net, inputs))

        @functools.cache
        def measure(scale: float) -> Mapping[str, Tensor]:
            found: Sequence[Tensor | None] = [None] * len(edges)
            if edges and loss is not None:
                starts = [edge for edge, _ in edges.values()]
                try:
                    found = torch.autograd.grad(loss * scale, starts, allow_unused=True, retain_graph=True)
                except RuntimeError as error:
                    raise NotMixedError(f"the net has no gradients to tell by; {_first_line(error)}") from error
            pairs = zip(edges.items(), found, strict=True)
            return {path: torch.zeros_like(like) if given is None else given for (path, (_, like)), given in pairs}

        yield measure


def _projection(output: Any) -> Tensor | None:
    """A number that depends on every value that the net gives; `None` where no gradient can flow."""
    generator = torch.Generator().manual_seed(0)
    terms = []
    for value in _tensors_in(output):
        if value.requires_grad and value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator, device="cpu")
            terms.append((value.float() * noise.to(value.device)).sum().cpu())
    return torch.stack(terms).sum() if terms else None


def _tensors_in(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors_in(inner)
    elif hasattr(value, "__dict__") and not isinstance(value, nn.Module | type):
        for inner in vars(value).values():
            yield from _tensors_in(inner)
