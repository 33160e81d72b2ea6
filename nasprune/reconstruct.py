"""Closed-form refitting of a cut network on calibration inputs, without a gradient step.

Layers are refitted in execution order: the weights of each convolution or linear layer become the least-squares map
from what the layer now reads to what the dense layer gave, with a pull towards its old weights. `lstsq` reads the
inputs of the already refitted cut network (as He et al. 2017, arXiv:1707.06168, and Luo et al. 2017, arXiv:1707.06342,
do for one layer), so that each layer also makes good what went wrong before it; `obs` reads the dense network's inputs,
which is the joint weight update of the Optimal Brain Surgeon (Hassibi and Stork 1993). Departures: all layers are
refitted, with their means (in the bias, or in the running mean of the batch norm behind); and the last layer of a
residual branch also aims at what the shortcut beside it has lost. Layers that are no modules of
torch's own, or run twice, keep their weights; batch norms behind them take new statistics while the refit passes.

The dense and the cut network run side by side in two threads and hand over one layer at a time, so that memory holds
one layer's samples; a layer's rows enter its Gram matrix in chunks.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from nasprune.errors import InputError
from nasprune.graph.capture import submodule, undisturbed
from nasprune.graph.model import ModelGraph
from nasprune.graph.program import arguments, operator, shape_of
from nasprune.layers import is_layer, output_rows, patches, row_count, weight_matrix
from nasprune.plan import PrunePlan

METHODS = ("none", "lstsq", "obs")
ROWS = 40_000
CHUNK = 8_192
DAMP = 1e-4
FEATURES = 6_144  # largest side of the matrix that is solved
WIDTH = 2_048
NAMED = 5  # layers that a note lists
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum")


@dataclass(frozen=True)
class Site:
    """A layer to refit. norm: path of the batch norm behind it. block: the block whose branch it ends.

    made, read: which of the dense layer's output and input channels stay, boolean; `None` is all.
    """

    path: str
    norm: str | None
    block: str | None
    made: Tensor | None
    read: Tensor | None

    @property
    def reads_all(self) -> bool:
        return self.read is None or bool(self.read.all())


@dataclass(frozen=True)
class _Target:
    """What the dense layer gave: rows (n,) that were sampled, output (n, groups, outputs), shortcut (n, channels).

    features: what it read, less the cut channels; `None` where these matter and the method does not need the others.
    """

    path: str
    rows: Tensor
    output: Tensor
    shortcut: Tensor | None
    features: Tensor | None = None


@dataclass
class _Failure:
    error: BaseException | None = None


@dataclass
class _Moments:
    """Sums over rows, for each convolution group: features (F) and outputs (O), in float64.

    Products are taken about the means of the first rows, which keeps them exact where means are far above deviations.
    """

    count: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)
    shifts: tuple[Tensor, Tensor] | None = None

    def add(self, x: Tensor, y: Tensor) -> None:
        """x: (n, groups, F). y: (n, groups, O)."""
        x, y = _at_least_single(x), _at_least_single(y)
        if self.shifts is None:
            self.shifts = x.mean(0), y.mean(0)
        x, y = x - self.shifts[0], y - self.shifts[1]
        self.count += len(x)
        by_group = x.transpose(0, 1)
        for name, value in (
            ("xx", by_group.transpose(1, 2) @ by_group),
            ("xy", by_group.transpose(1, 2) @ y.transpose(0, 1)),
            ("x", x.sum(0)),
            ("y", y.sum(0)),
        ):
            known = self.parts.get(name)
            self.parts[name] = value.double() if known is None else known.add_(value)

    def means(self) -> tuple[Tensor, Tensor]:
        """Of the features (groups, F) and of the outputs (groups, O)."""
        assert self.shifts is not None
        x, y = self.parts["x"] / self.count, self.parts["y"] / self.count
        return x + self.shifts[0].double(), y + self.shifts[1].double()

    def products(self, centred: bool) -> tuple[Tensor, Tensor]:
        """Sums of features by features and of features by outputs, about their means or about zero."""
        off_x, off_y = self.parts["x"] / self.count, self.parts["y"] / self.count
        xx = self.parts["xx"] - self.count * _outer(off_x, off_x)
        xy = self.parts["xy"] - self.count * _outer(off_x, off_y)
        if centred:
            return xx, xy
        x, y = self.means()
        return xx + self.count * _outer(x, x), xy + self.count * _outer(x, y)


def _at_least_single(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]


def check_method(method: str) -> None:
    """Raises InputError unless `method` is one of METHODS."""
    if method not in METHODS:
        raise InputError(f"expected `reconstruct` to be one of {', '.join(METHODS)}, got {method!r}")


def reconstruct(
    dense: nn.Module,
    small: nn.Module,
    graph: ModelGraph,
    plan: PrunePlan,
    inputs: Tensor,
    method: str = "lstsq",
    *,
    rows: int = ROWS,
    damp: float = DAMP,
) -> list[str]:
    """Refits the layers of `small` in place.

    Args:
        dense: the network that was cut; left as found.
        small: what `nasprune.build(dense, graph, plan)` gave, on the same device.
        inputs: calibration inputs (n, ...), one batch; cast to the type of the network's weights.
        method: "lstsq", "obs" or "none".
        rows: how many output positions of a layer enter its fit at most.
        damp: pull towards the old weights, relative to the mean square of the features.

    Returns:
        Sentences about layers that had too few samples for a free fit, and about those that were not refitted: batch
        norms behind these get the statistics of `inputs`, each after all layers before it are refitted.

    Raises:
        InputError: another method, or a model that does not run its layers in the same order when cut.
    """
    check_method(method)
    if method == "none" or not (plan.keep or plan.drop):  # what is whole needs no refit
        return []
    if inputs.is_floating_point():
        inputs = inputs.to(_kind(dense))
    parts = submodule(dense, graph.scope), submodule(small, graph.scope)
    found = sites(parts[0], graph, plan)
    left = _left(found, graph, plan)
    norms = _norms_behind(left, found, parts[1], graph) if len(inputs) > 1 else []
    fit = _Fit(parts[1], method, rows, damp, _about(left, norms))
    handover: Queue[_Target | _Failure] = Queue(maxsize=1)
    done = threading.Event()

    def produce() -> None:
        try:
            with undisturbed(dense), _watched(_targets(parts[0], found, fit, handover, done)):
                dense(inputs)
            handover.put(_Failure())
        except BaseException as error:  # handed to the other thread, which raises it
            handover.put(_Failure(error))

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        with undisturbed(small), _estimated(norms), _watched(_refits(parts[1], found, fit, handover)):
            small(inputs)
    finally:
        done.set()
        while thread.is_alive():
            while not handover.empty():
                handover.get_nowait()
            thread.join(0.01)
    return fit.notes


def _kind(model: nn.Module) -> torch.dtype:
    """The type of floating-point numbers that the model works with."""
    kinds = (value.dtype for value in model.parameters() if value.is_floating_point())
    return next(kinds, torch.get_default_dtype())


def sites(part: nn.Module, graph: ModelGraph, plan: PrunePlan) -> list[Site]:
    """The layers that stay and run once, in execution order."""
    modules, program = dict(part.named_modules()), graph.program
    keep = graph.unit_mask(plan.keep)
    gone = tuple(f"{name}." for name in plan.drop)
    ends = {b.branches[0]: b.name for b in graph.blocks if len(b.branches) == 1 and b.name not in plan.drop}
    weights: dict[int, int] = {}
    for module in modules.values():
        if is_layer(module):
            weights[id(module.weight)] = weights.get(id(module.weight), 0) + 1
    found: dict[str, Site] = {}
    repeated: set[str] = set()
    for node in program.live:
        path, _, again = program.owner(node).partition("@")
        module = modules.get(path)
        if module is None or not is_layer(module) or path.startswith(gone or "\0") or not _runs(node, path, graph):
            continue
        if again or path in found or weights[id(module.weight)] > 1:
            repeated.add(path)
        norm = _norm_behind(node, modules, graph)
        last = next(iter(node.users)) if norm else node
        axes = {a.axis: torch.from_numpy(a.positions(keep).reshape(-1)) for a in graph.params.get(f"{path}.weight", ())}
        made, read = (axes.get(1), axes.get(0)) if getattr(module, "transposed", False) else (axes.get(0), axes.get(1))
        if _depthwise(module):
            made = axes.get(0)
            read = made.reshape(module.in_channels, -1)[:, 0] if made is not None else None
        found[path] = Site(path, norm, ends.get(last.name), made, read)
    return [site for path, site in found.items() if path not in repeated]


def _depthwise(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels


def _runs(node: Node, path: str, graph: ModelGraph) -> bool:
    """Whether the operation multiplies with the layer's weight; what only pads the input does not."""
    weight = arguments(node).get("weight")
    return isinstance(weight, Node) and graph.program.params.get(weight.name) == f"{path}.weight"


def _norm_behind(node: Node, modules: Mapping[str, nn.Module], graph: ModelGraph) -> str | None:
    users = list(node.users)
    if len(users) != 1 or operator(users[0]) != "batch_norm":
        return None
    if operator(node) == "linear" and len(shape_of(node) or ()) != 2:  # the norm runs along another axis
        return None
    path = graph.program.owner(users[0])
    module = modules.get(path)
    return path if isinstance(module, _BatchNorm) and module.running_mean is not None else None


def _left(found: Sequence[Site], graph: ModelGraph, plan: PrunePlan) -> dict[Node, str]:
    """Layers with cut layers or dropped blocks before them that are not refitted: what runs them, and their names."""
    program, keep, refitted = graph.program, graph.unit_mask(plan.keep), {site.path for site in found}
    cut = {name for name, axes in graph.params.items() if not all(axis.positions(keep).all() for axis in axes)}
    blocks = [block for block in graph.blocks if block.name in plan.drop]
    gone = {name for block in blocks for name in block.nodes}
    zero = {name for block in blocks for name in block.branches}
    behind: set[Node] = set()
    left: dict[Node, str] = {}
    for node in program.live:
        path, before = program.owner(node).partition("@")[0], node.all_input_nodes
        changed = any(source in behind for source in before)
        if changed or node.name in zero or any(program.params.get(source.name) in cut for source in before):
            behind.add(node)
        if changed and node.name not in gone and path not in refitted and _multiplies(node, graph):
            left[node] = path or next(iter(_weights(node, graph)), node.name)
    return left


def _multiplies(node: Node, graph: ModelGraph) -> bool:
    """Whether the operation is a convolution or linear layer, or the product with a parameter."""
    name = operator(node)
    return name == "linear" or name.startswith("conv") or (name in PRODUCTS and bool(_weights(node, graph)))


def _weights(node: Node, graph: ModelGraph) -> list[str]:
    """Names of the parameters that the operation reads, as they are or transposed."""
    known = graph.program.params
    own = [[source, *source.all_input_nodes[:1]] for source in node.all_input_nodes if len(source.all_input_nodes) < 2]
    return [known[one.name] for sources in own for one in sources if one.name in known]


def _norms_behind(
    left: Mapping[Node, str], found: Sequence[Site], part: nn.Module, graph: ModelGraph
) -> list[_BatchNorm]:
    """Batch norms that read what layers without a refit made, with no refitted layer between."""
    modules, program = dict(part.named_modules()), graph.program
    refitted, fitted_norms = {site.path for site in found}, {site.norm for site in found}
    norms: dict[str, _BatchNorm] = {}
    reached: set[Node] = set(left)
    for node in program.live:
        path = program.owner(node).partition("@")[0]
        if node not in reached and path not in refitted and any(source in reached for source in node.all_input_nodes):
            reached.add(node)
            module = modules.get(path)
            if operator(node) == "batch_norm" and path not in fitted_norms and isinstance(module, _BatchNorm):
                norms[path] = module
    return [norm for norm in norms.values() if norm.running_mean is not None]


def _about(left: Mapping[Node, str], norms: Sequence[_BatchNorm]) -> list[str]:
    names = list(dict.fromkeys(left.values()))
    if not names:
        return []
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    verb = "is" if len(names) == 1 else "are"
    result = "; statistics of batch norms behind are re-estimated" if norms else ""
    return [
        f"{', '.join(names[:NAMED])}{more} {verb} not refitted: only torch's own convolution and linear modules are, "
        f"where they run once with a weight of their own{result}"
    ]


@contextmanager
def _estimated(norms: Sequence[_BatchNorm]) -> Iterator[None]:
    """The norms take their statistics from what runs meanwhile, and use them at once."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # plain average
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


@contextmanager
def _watched(handles: Sequence[Any]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _block_inputs(part: nn.Module, found: Sequence[Site], seen: dict[str, Tensor]) -> list[Any]:
    """Hooks that keep the input of every block whose branch is refitted."""

    def watch(name: str) -> Callable[..., None]:
        return lambda _, args, kwargs: seen.__setitem__(name, _first(args, kwargs))

    blocks = [site.block for site in found if site.block]
    return [part.get_submodule(name).register_forward_pre_hook(watch(name), with_kwargs=True) for name in blocks]


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The first tensor that a module is called with."""
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _targets(
    part: nn.Module,
    found: Sequence[Site],
    fit: _Fit,
    handover: Queue[_Target | _Failure],
    done: threading.Event,
) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def watch(site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor) -> None:
            if done.is_set():
                return
            read = _first(args, kwargs)
            rows = fit.sample(site, row_count(layer, read))
            output = output_rows(layer, result)[rows]
            if site.made is not None:
                output = _kept(output, site.made, layer)
            beside = seen.pop(site.block) if site.block else None
            usable = beside is not None and beside.shape == result.shape  # none is repeated along an axis
            shortcut = _channel_rows(beside, rows, layer) if beside is not None and usable else None
            if shortcut is not None and site.made is not None:
                shortcut = shortcut[:, site.made]
            features = _read(read, layer, site) if fit.method == "obs" or site.reads_all else None
            handover.put(_Target(site.path, rows, output, shortcut, features))

        return hook

    return _block_inputs(part, found, seen) + [
        part.get_submodule(site.path).register_forward_hook(watch(site), with_kwargs=True) for site in found
    ]


def _refits(part: nn.Module, found: Sequence[Site], fit: _Fit, handover: Queue[_Target | _Failure]) -> list[Any]:
    seen: dict[str, Tensor] = {}

    def watch(site: Site) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            target = handover.get()
            if isinstance(target, _Failure):
                raise target.error or InputError("the cut network runs more layers than the dense one; do not refit it")
            if target.path != site.path:
                raise InputError(f"the cut network runs {site.path!r} where the dense one runs {target.path!r}")
            beside = seen.pop(site.block) if site.block else None
            shortcut = None
            if beside is not None and target.shortcut is not None:
                shortcut = _channel_rows(beside, target.rows, layer)
            fit.refit(site, layer, _first(args, kwargs), target, shortcut)

        return hook

    return _block_inputs(part, found, seen) + [
        part.get_submodule(site.path).register_forward_pre_hook(watch(site), with_kwargs=True) for site in found
    ]


def _channel_rows(value: Tensor, rows: Tensor, layer: nn.Module) -> Tensor:
    """What is added to the layer's output, as sampled rows (rows, channels); its channels lie where the layer's do."""
    axis = value.ndim - 1 - len(layer.kernel_size) if isinstance(layer, _ConvNd) else value.ndim - 1
    last = value.movedim(axis, -1)
    return last.reshape(-1, last.shape[-1])[rows]


def _read(x: Tensor, layer: nn.Module, site: Site) -> Tensor:
    """The dense layer's input without the channels that are gone."""
    if site.read is None or site.reads_all:
        return x
    return x[..., site.read] if isinstance(layer, nn.Linear) else x[:, site.read]


def _kept(output: Tensor, kept: Tensor, layer: nn.Module) -> Tensor:
    """Kept outputs of (n, groups, outputs): a depthwise layer loses whole groups, others equally many of each group."""
    chosen = output.flatten(1)[:, kept]
    if _depthwise(layer):
        return chosen.reshape(len(output), -1, output.shape[2])
    return chosen.reshape(len(output), output.shape[1], -1)


@dataclass
class _Fit:
    """The least-squares step. notes: what the user should know."""

    part: nn.Module
    method: str
    rows: int
    damp: float
    notes: list[str] = field(default_factory=list)

    def sample(self, site: Site, count: int) -> Tensor:
        """At most `rows` of `count` rows, ascending, fixed by the layer's name."""
        if count <= self.rows:
            return torch.arange(count)
        generator = torch.Generator().manual_seed(zlib.crc32(site.path.encode()))
        return torch.randint(count, (self.rows,), generator=generator).sort().values

    def refit(self, site: Site, layer: nn.Module, x: Tensor, target: _Target, shortcut: Tensor | None) -> None:
        """Writes the fitted weights, and the fitted mean into the bias or the batch norm behind."""
        norm = self.part.get_submodule(site.norm) if site.norm else None
        output = target.output
        gap = None
        if target.shortcut is not None and shortcut is not None and shortcut.shape == target.shortcut.shape:
            gap = target.shortcut - shortcut
        if site.reads_all and (gap is None or not gap.any()) and _same(target.features, x):
            return
        if gap is not None:
            output = output + _before_norm(norm, gap).reshape(output.shape)
        bias = getattr(layer, "bias", None)
        read = target.features if self.method == "obs" and target.features is not None else x
        new, mean = self._fitted(site, layer, read, target.rows, output, norm is not None or bias is not None)
        with torch.no_grad():
            _write(layer, new)
            if bias is not None:
                bias.copy_(mean.reshape(-1))
            elif isinstance(norm, _BatchNorm) and norm.running_mean is not None:
                norm.running_mean.sub_(mean.reshape(-1).to(norm.running_mean.dtype))

    def _fitted(
        self, site: Site, layer: nn.Module, x: Tensor, rows: Tensor, output: Tensor, free_mean: bool
    ) -> tuple[Tensor, Tensor]:
        """New weights (groups, F, O), and the mean of what they leave over, (groups, O)."""
        old, count = weight_matrix(layer), len(rows)
        features = old.shape[1]
        parts = zip(torch.split(rows, CHUNK), torch.split(output, CHUNK), strict=True)
        pairs = ((patches(layer, x, chosen), y) for chosen, y in parts)
        if min(features, count) > FEATURES:
            self.notes.append(
                f"{site.path}: its weights stay as they are, since {features} features are too many for a refit"
            )
            return _unsolved(pairs, old)
        if count < 2 * features:
            self.notes.append(
                f"{site.path}: {count} samples for {features} features, so its refit stays near the old "
                "weights; give more calibration images"
            )
        damp = self.damp * max(1.0, 2 * features / count)
        if count < features:
            return _solved_by_sample(pairs, old, damp, free_mean)
        moments = _Moments()
        for read, y in pairs:
            moments.add(read, y)
        return _solved(moments, old, damp, free_mean)


def _same(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.shape == b.shape and torch.equal(a, b)


def _before_norm(norm: nn.Module | None, gap: Tensor) -> Tensor:
    """What to add before a batch norm to add `gap` (n, channels) behind it; 0 where the norm is switched off."""
    if not isinstance(norm, _BatchNorm) or norm.running_var is None:
        return gap
    scale = (norm.running_var + norm.eps).rsqrt() * (norm.weight if norm.affine else 1.0)
    usable = scale.abs() > 1e-3
    return torch.where(usable, gap / torch.where(usable, scale, 1.0), 0.0)


def _solved(moments: _Moments, old: Tensor, damp: float, free_mean: bool) -> tuple[Tensor, Tensor]:
    """New weights (groups, F, O) in the type of the old ones, and the mean of what they leave over, (groups, O)."""
    xx, xy = moments.products(centred=free_mean)
    x, y = moments.means()
    start = old.double()
    pull = damp * xx.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    pulled = xx + torch.diag_embed(pull[:, None].expand(xx.shape[:2]))
    new = (start + torch.linalg.solve(pulled, xy - xx @ start)).to(old.dtype)
    return new, y - (x[:, None, :] @ new.double())[:, 0]


def _solved_by_sample(
    pairs: Iterable[tuple[Tensor, Tensor]], old: Tensor, damp: float, free_mean: bool
) -> tuple[Tensor, Tensor]:
    """What `_solved` gives, from products of samples by samples: for fewer samples than features."""
    read, wanted = zip(*pairs, strict=True)
    x = _at_least_single(torch.cat(read)).transpose(0, 1)
    y = _at_least_single(torch.cat(wanted)).transpose(0, 1)
    mean_x, mean_y = (value.mean(1, keepdim=True, dtype=torch.float64) for value in (x, y))
    if free_mean:
        x, y = x - mean_x.to(x.dtype), y - mean_y.to(y.dtype)
    products = (x @ x.transpose(1, 2)).double()
    squares = products.diagonal(dim1=1, dim2=2)
    pull = damp * (squares.sum(1) / old.shape[1]).clamp(min=1e-12)
    missing = (y - x @ old.to(x.dtype)).double()
    each = torch.linalg.solve(products + torch.diag_embed(pull[:, None].expand(squares.shape)), missing)
    new, mean = old.clone(), mean_y
    for start in range(0, old.shape[1], WIDTH):  # features in turn, to save memory
        part = slice(start, start + WIDTH)
        new[:, part] += (x[:, :, part].double().transpose(1, 2) @ each).to(old.dtype)
        mean = mean - mean_x[:, :, part] @ new[:, part].double()
    return new, mean[:, 0]


def _unsolved(pairs: Iterable[tuple[Tensor, Tensor]], old: Tensor) -> tuple[Tensor, Tensor]:
    """The old weights and the mean of what they leave over."""
    sums: list[tuple[Tensor, Tensor, int]] = []
    for x, y in pairs:
        sums.append((x.sum(0, dtype=torch.float64), y.sum(0, dtype=torch.float64), len(x)))
    sum_x, sum_y, counts = zip(*sums, strict=True)
    mean_x, mean_y = sum(sum_x) / sum(counts), sum(sum_y) / sum(counts)
    return old.clone(), mean_y - (mean_x[:, None, :] @ old.double())[:, 0]


def _write(layer: nn.Module, matrix: Tensor) -> None:
    """The inverse of `weight_matrix`: (groups, F, O) into the layer's weight."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if isinstance(layer, nn.Linear):
        weight.copy_(matrix[0].t())
    elif getattr(layer, "transposed", False):
        groups = matrix.shape[0]
        split = matrix.reshape(groups, weight.shape[0] // groups, -1, weight.shape[1]).transpose(2, 3)
        weight.copy_(split.reshape(weight.shape))
    else:
        weight.copy_(matrix.transpose(1, 2).reshape(weight.shape))
