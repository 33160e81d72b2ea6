"""Small nets of edges in a row: each a weighted sum of candidates, or one of them at a time."""

import torch
from torch import nn

from tests.supernet.toys import conv, images


class Edge(nn.Module):
    """A weighted sum; how architecture weights become shares is up to `mix`."""

    def __init__(self, ops, mix=None):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.alpha = nn.Parameter(torch.randn(len(self.ops)))
        self.mix = mix or (lambda alpha: alpha.softmax(0))

    def forward(self, x):
        return sum(w * op(x) for w, op in zip(self.mix(self.alpha), self.ops, strict=True))


class Net(nn.Module):
    def __init__(self, *edges, c=4):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.edges = nn.Sequential(*edges)
        self.head = nn.Linear(c, 10)

    def forward(self, x):
        return self.head(self.edges(self.stem(x)).mean((2, 3)))


def candidates(c=4):
    return [nn.Identity(), conv(c, 1), conv(c, 3)]


def connected(net):
    net.eval()
    with torch.no_grad():
        one, other = net(images(seed=1)), net(images(seed=2))
    return not torch.equal(one, other)


class OneOf(nn.Module):
    """Single-path: runs the candidate with the greatest architecture weight."""

    def __init__(self, ops, gain=1):
        super().__init__()
        self.ops = nn.ModuleList(ops)
        self.alpha = nn.Parameter(torch.randn(len(self.ops)))
        self.gain = gain

    def forward(self, x):
        return self.gain * self.ops[int(self.alpha.argmax())](x)


class Indexed(nn.Module):
    """The net indexes its lists of candidates, unless it is to `call` them; `chain`: applied one after another."""

    def __init__(self, *edges, chain=False, kind=nn.ModuleList, call=False):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.edges = nn.ModuleList(kind(ops) for ops in edges)
        self.head = nn.Linear(4, 10)
        self.chain, self.call = chain, call

    def forward(self, x):
        x = self.stem(x)
        for edge in self.edges:
            if self.chain:
                for op in edge:
                    x = op(x)
            else:
                x = edge(x) if self.call else edge["1" if isinstance(edge, nn.ModuleDict) else 1](x)
        return self.head(x.mean((2, 3)))
