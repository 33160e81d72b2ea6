"""Small supernets in the manner of those in the wild, rebuilt: what finding and trimming has to cope with."""

import torch
from torch import Tensor, nn

PRIMITIVES = ("none", "max", "avg", "skip", "sep3", "sep5", "dil3", "dil5")


class Zero(nn.Module):
    def __init__(self, stride: int = 1):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :: self.stride, :: self.stride].mul(0.0)


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class FactorizedReduce(nn.Module):
    def __init__(self, c_in: int, c_out: int):
        super().__init__()
        self.halves = nn.ModuleList([nn.Conv2d(c_in, c_out // 2, 1, stride=2, bias=False) for _ in range(2)])
        self.bn = nn.BatchNorm2d(c_out, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.relu()
        return self.bn(torch.cat([self.halves[0](x), self.halves[1](x[:, :, 1:, 1:])], dim=1))


class ReLUConvBN(nn.Sequential):
    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1):
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, bias=False)
        super().__init__(nn.ReLU(), conv, nn.BatchNorm2d(c_out, affine=False))


class DilConv(nn.Sequential):
    def __init__(self, c: int, kernel: int, stride: int):
        deep = nn.Conv2d(c, c, kernel, stride, kernel - 1, dilation=2, groups=c, bias=False)
        super().__init__(nn.ReLU(), deep, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c, affine=False))


class SepConv(nn.Sequential):
    def __init__(self, c: int, kernel: int, stride: int):
        layers: list[nn.Module] = []
        for step in (stride, 1):
            deep = nn.Conv2d(c, c, kernel, step, kernel // 2, groups=c, bias=False)
            layers += [nn.ReLU(), deep, nn.Conv2d(c, c, 1, bias=False), nn.BatchNorm2d(c, affine=False)]
        super().__init__(*layers)


def op(name: str, c: int, stride: int) -> nn.Module:
    if name in ("max", "avg"):
        pool = nn.MaxPool2d(3, stride, 1) if name == "max" else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
        return nn.Sequential(pool, nn.BatchNorm2d(c, affine=False))
    if name == "skip":
        return Identity() if stride == 1 else FactorizedReduce(c, c)
    if name == "none":
        return Zero(stride)
    return (SepConv if name.startswith("sep") else DilConv)(c, int(name[3]), stride)


class MixedOp(nn.Module):
    """quark0: `_ops`, all of them on the whole input."""

    def __init__(self, c: int, stride: int, names=PRIMITIVES):
        super().__init__()
        self._ops = nn.ModuleList(op(name, c, stride) for name in names)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * each(x) for w, each in zip(weights, self._ops, strict=True))


class PartialEdge(nn.Module):
    """PC-DARTS: a quarter of the channels is mixed, the rest passes by, then all are shuffled."""

    def __init__(self, c: int, stride: int, names=PRIMITIVES):
        super().__init__()
        self._ops = nn.ModuleList(op(name, c // 4, stride) for name in names)
        self.mp = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        quarter = x.shape[1] // 4
        first, rest = x[:, :quarter], x[:, quarter:]
        mixed = sum(w * each(first) for w, each in zip(weights, self._ops, strict=True))
        rest = rest if mixed.shape[2] == rest.shape[2] else self.mp(rest)
        n, c, h, w = (joined := torch.cat([mixed, rest], dim=1)).shape
        return joined.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w)


class SwitchedEdge(nn.Module):
    """P-DARTS: `m_ops`, only those that are switched on."""

    def __init__(self, c: int, stride: int, switches: list[bool]):
        super().__init__()
        self.m_ops = nn.ModuleList()
        for on, name in zip(switches, PRIMITIVES, strict=True):
            if on:
                self.m_ops.append(op(name, c, stride))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        return sum(w * each(x) for w, each in zip(weights, self.m_ops, strict=True))


class Cell(nn.Module):
    """Two inputs, four nodes, an edge from every earlier node, the nodes concatenated; edges lie in `edges_name`."""

    def __init__(self, edge, before: int, last: int, c: int, reduction: bool, reduced: bool, edges_name: str):
        super().__init__()
        self.reduction = reduction
        self.preprocess0 = FactorizedReduce(before, c) if reduced else ReLUConvBN(before, c)
        self.preprocess1 = ReLUConvBN(last, c)
        strides = [2 if reduction and source < 2 else 1 for node in range(4) for source in range(2 + node)]
        setattr(self, edges_name, nn.ModuleList(edge(c, stride, number) for number, stride in enumerate(strides)))
        self.edges_name = edges_name

    def forward(self, s0: Tensor, s1: Tensor, weights, betas=None) -> Tensor:
        states = [self.preprocess0(s0), self.preprocess1(s1)]
        edges, offset = getattr(self, self.edges_name), 0
        for _ in range(4):
            numbers = range(offset, offset + len(states))
            outputs = [edges[n](state, weights[n]) for n, state in zip(numbers, states, strict=True)]
            if betas is not None:
                outputs = [b * y for b, y in zip(betas[offset : offset + len(states)].softmax(0), outputs, strict=True)]
            offset += len(states)
            states.append(sum(outputs))
        return torch.cat(states[2:], dim=1)


class DartsNet(nn.Module):
    """The chain of cells; the alphas are plain tensors as in quark0, in a list beside."""

    names = PRIMITIVES
    betas = False
    edges_name = "_ops"

    def __init__(self, c: int = 8, layers: int = 8, spread: float = 0.5):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * c, 3, padding=1, bias=False), nn.BatchNorm2d(3 * c))
        self.cells = nn.ModuleList()
        before, last, reduced = 3 * c, 3 * c, False
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            c = 2 * c if reduction else c
            self.cells.append(Cell(self.edge(reduction), before, last, c, reduction, reduced, self.edges_name))
            before, last, reduced = last, 4 * c, reduction
        self.classifier = nn.Linear(last, 10)
        self.set_alphas(spread)

    def edge(self, reduction: bool):
        return lambda c, stride, number: MixedOp(c, stride, self.names)

    def set_alphas(self, spread: float) -> None:
        self.alphas_normal = (spread * torch.randn(14, len(self.names))).requires_grad_()
        self.alphas_reduce = (spread * torch.randn(14, len(self.names))).requires_grad_()
        self._arch_parameters = [self.alphas_normal, self.alphas_reduce]
        if self.betas:
            self.betas_normal, self.betas_reduce = (torch.randn(14).requires_grad_() for _ in range(2))

    def rows(self, cell: Cell):
        return (self.alphas_reduce if cell.reduction else self.alphas_normal).softmax(-1)

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            betas = (self.betas_reduce if cell.reduction else self.betas_normal) if self.betas else None
            s0, s1 = s1, cell(s0, s1, self.rows(cell), betas)
        return self.classifier(s1.mean((2, 3)))


class PartialNet(DartsNet):
    betas = True

    def edge(self, reduction: bool):
        return lambda c, stride, number: PartialEdge(c, stride, self.names)


class SwitchedNet(DartsNet):
    """P-DARTS at a later stage: alphas are parameters, every edge keeps its own operations."""

    edges_name = "cell_ops"
    counts = (5, 3, 4, 2)

    def switches(self, reduction: bool, number: int) -> list[bool]:
        kept = torch.randperm(8, generator=torch.Generator().manual_seed(2 * number + reduction))
        return [k in kept[: self.counts[number % 4]].tolist() for k in range(8)]

    def edge(self, reduction: bool):
        return lambda c, stride, number: SwitchedEdge(c, stride, self.switches(reduction, number))

    def set_alphas(self, spread: float) -> None:
        self.alphas = nn.ParameterDict()
        for kind in ("normal", "reduce"):
            for number in range(14):
                size = sum(self.switches(kind == "reduce", number))
                self.alphas[f"{kind}_{number}"] = nn.Parameter(spread * torch.randn(size))

    def rows(self, cell: Cell):
        kind = "reduce" if cell.reduction else "normal"
        return [self.alphas[f"{kind}_{number}"].softmax(-1) for number in range(14)]


class Bench201Cell(nn.Module):
    """AutoDL, TE-NAS, darts-pt: a list of operations for every edge, and no module for the edge."""

    def __init__(self, c: int):
        super().__init__()
        self.edges = nn.ModuleDict()
        for target in range(1, 4):
            for source in range(target):
                ops = [Zero(), Identity(), ReLUConvBN(c, c, 1), ReLUConvBN(c, c, 3), nn.AvgPool2d(3, 1, 1)]
                self.edges[f"{target}<-{source}"] = nn.ModuleList(ops)

    def forward(self, x: Tensor, weights: Tensor, least: float) -> Tensor:
        nodes, rows = [x], {key: number for number, key in enumerate(sorted(self.edges))}
        for target in range(1, 4):
            total = 0.0
            for source in range(target):
                key = f"{target}<-{source}"
                pairs = zip(self.edges[key], weights[rows[key]], strict=True)
                total = total + sum(each(nodes[source]) * w for each, w in pairs if w > least)
            nodes.append(total)
        return nodes[-1]


class Bench201Net(nn.Module):
    def __init__(self, c: int = 4, per_stage: int = 1, least: float = 0.0):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, c, 3, padding=1, bias=False), nn.BatchNorm2d(c))
        self.cells = nn.ModuleList()
        for stage in range(3):
            if stage:
                self.cells.append(ReLUConvBN(c, 2 * c, 3, stride=2))
                c *= 2
            self.cells.extend(Bench201Cell(c) for _ in range(per_stage))
        self.classifier = nn.Linear(c, 10)
        self.arch_parameters = nn.Parameter(torch.randn(6, 5))
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for cell in self.cells:
            weights = self.arch_parameters.softmax(-1)
            x = cell(x, weights, self.least) if isinstance(cell, Bench201Cell) else cell(x)
        return self.classifier(x.mean((2, 3)))


class LayerChoice(nn.Module):
    """As in NNI before a strategy changes it: named children, of which the first runs."""

    def __init__(self, candidates: dict[str, nn.Module], label: str):
        super().__init__()
        for name, module in candidates.items():
            self.add_module(name, module)
        self.names = list(candidates)
        self.label = label

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule(self.names[0])(x)


def chain(blocks: int = 4, c: int = 4) -> nn.Module:
    """Single-path: each block runs one of three."""
    layers = [nn.Conv2d(3, c, 3, padding=1)]
    for number in range(blocks):
        stride = 2 if number == 1 else 1
        candidates = {"k3": nn.Conv2d(c, c, 3, stride, 1), "k5": nn.Conv2d(c, c, 5, stride, 2)}
        candidates["pool"] = nn.MaxPool2d(3, stride, 1)
        layers.append(LayerChoice(candidates, f"block{number}"))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(c, 10))


class DiffMutableOP(nn.Module):
    """As in MMRazor: `_candidates`, `choices`, `alias`; without weights all are summed, or one is chosen."""

    def __init__(self, candidates: dict[str, nn.Module], alias: str):
        super().__init__()
        self._candidates = nn.ModuleDict(candidates)
        self.alias = alias
        self.arch_param: Tensor | None = None
        self.current: str | None = None

    @property
    def choices(self) -> list[str]:
        return list(self._candidates)

    def forward(self, x: Tensor) -> Tensor:
        if self.current is not None:
            return self._candidates[self.current](x)
        outputs = [each(x) for each in self._candidates.values()]
        shares = [1.0] * len(outputs) if self.arch_param is None else self.arch_param.softmax(-1)
        return sum(w * y for w, y in zip(shares, outputs, strict=True))


def razor(single: bool = False) -> nn.Module:
    """Three mutable operations in a row, after their mutator has set their weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 3, padding=1)]
    for number in range(3):
        ops = {"zero": Zero(), "skip_connect": Identity(), "conv": ReLUConvBN(4, 4, 3)}
        layers.append(DiffMutableOP(ops, f"node{number}"))
        layers[-1].arch_param = torch.randn(3)
        layers[-1].current = "conv" if single else None
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))


class Either(nn.Module):
    """A container of one's own: candidates are attributes beside a norm that reads the same input."""

    def __init__(self, c: int):
        super().__init__()
        self.wide = nn.Conv2d(c, c, 3, padding=1)
        self.narrow = nn.Conv2d(c, c, 1)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.scale = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid())
        self.alpha = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        share = self.alpha.softmax(0)
        gated = self.scale(x).mean() * 0
        return share[0] * self.wide(x) + share[1] * self.narrow(x) + share[2] * self.pool(x) + gated
