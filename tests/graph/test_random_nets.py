"""Random small nets from structural pieces: whatever the graph frees, the cut proves; predicted cost equals counted."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nasprune.cost.flops import CostModel, measure
from nasprune.cut.stirred import distinct
from nasprune.cut.surgery import build
from nasprune.cut.trial_plans import half_plan
from nasprune.cut.verify import verify
from nasprune.run.trace import trace

PIECES = (
    "conv", "depthwise", "grouped", "residual", "concat", "concat_twice", "chunk", "shuffle", "squeeze_excite", "pad",
    "group_norm", "layer_norm", "prelu", "pool", "glu", "transposed", "dense_skip", "pixel_shuffle", "mean_gate",
)  # fmt: skip


class RandomNet(nn.Module):
    """A chain of pieces over maps of `width` channels, a multiple of 8; every piece returns a multiple of 8."""

    def __init__(self, pieces: list[str]) -> None:
        super().__init__()
        self.pieces, self.layers = pieces, nn.ModuleList()
        self.layers.append(nn.Conv2d(3, 16, 3, padding=1))
        width = 16
        for piece in pieces:
            layer, width = self.piece(piece, width)
            self.layers.append(layer)
        self.head = nn.Linear(width, 4)

    @staticmethod
    def piece(piece: str, c: int) -> tuple[nn.Module, int]:
        conv = nn.Conv2d
        match piece:
            case "conv":
                return nn.Sequential(conv(c, 24, 3, padding=1), nn.BatchNorm2d(24), nn.ReLU()), 24
            case "depthwise":
                return conv(c, c, 3, padding=1, groups=c), c
            case "grouped":
                return conv(c, 16, 3, padding=1, groups=4), 16
            case "residual" | "chunk" | "shuffle":
                half = c // 2 if piece == "chunk" else c
                return conv(half, half, 1), c
            case "concat" | "dense_skip":
                return conv(c, 8, 1), c + 8
            case "concat_twice":
                return conv(3 * c, 16, 1), 16
            case "squeeze_excite":
                return nn.Sequential(nn.Linear(c, 6), nn.ReLU(), nn.Linear(6, c), nn.Sigmoid()), c
            case "pad":
                return nn.Identity(), c + 8
            case "group_norm":
                return nn.GroupNorm(4, c), c
            case "layer_norm":
                return nn.LayerNorm(c), c
            case "prelu":
                return nn.PReLU(c), c
            case "glu":
                return conv(c, 2 * c, 1), c
            case "transposed":
                return nn.ConvTranspose2d(c, 16, 2, 2, groups=2), 16
            case "pixel_shuffle":
                return conv(c, 32, 1), 8
            case _:
                return nn.Identity(), c

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers[0](x)
        for piece, layer in zip(self.pieces, list(self.layers)[1:], strict=True):
            x = self.step(piece, layer, x)
        return self.head(x.mean((2, 3)))

    @staticmethod
    def step(piece: str, layer: nn.Module, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        match piece:
            case "residual":
                return (x + layer(x)).relu()
            case "concat" | "dense_skip":
                return torch.cat([x, layer(x).relu()], 1)
            case "concat_twice":
                return layer(torch.cat([x, x.relu(), x], 1))
            case "chunk":
                left, right = x.chunk(2, 1)
                return torch.cat([left, layer(right).relu()], 1)
            case "shuffle":
                return layer(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, -1, h, w))
            case "squeeze_excite":
                return x * layer(x.mean((2, 3))).view(n, c, 1, 1)
            case "pad":
                return F.pad(x, (0, 0, 0, 0, 3, 5))
            case "layer_norm":
                return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            case "pool":
                return F.adaptive_avg_pool2d(x, 4)
            case "glu":
                return F.glu(layer(x), 1)
            case "pixel_shuffle":
                return F.pixel_shuffle(layer(x), 2)
            case "mean_gate":
                return x * x.mean(1, keepdim=True)
            case _:
                return layer(x)


@settings(max_examples=40, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6), st.integers(0, 2**16))
def test_what_is_free_can_be_cut(pieces: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    model = distinct(RandomNet(pieces).eval())
    graph = trace(model, torch.randn(1, 3, 8, 8))
    plan = half_plan(graph, [group.name for group in graph.free_groups])
    proof = verify(model, build(model, graph, plan), graph, plan)
    assert proof.max_error <= 1e-9
    assert proof.flops == proof.predicted_flops
    assert CostModel(graph).dense == measure(model, graph.example_inputs)
