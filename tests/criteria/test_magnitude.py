"""Criteria over weights alone, each against its formula by another route."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.cluster import KMeans
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import NearestNeighbors
from torch import nn

from nasprune.calibration.removal import removal_scores
from nasprune.calibration.scoring import WeightContext
from nasprune.graph.model import AxisSlice, AxisUnits, CoupledGroup
from nasprune.run.names import scorer
from nasprune.run.trace import trace
from tests.criteria.nets import chain, mixed
from tests.fakes import graph_of


def score(spec: str, group: CoupledGroup, model: nn.Module, graph) -> torch.Tensor:
    criterion = scorer(spec)
    return criterion.make().score(group, WeightContext(model, graph, reduce=criterion.reduce))


def one_layer(spec: str, weight: torch.Tensor) -> torch.Tensor:
    """Scores of a linear layer's outputs."""
    width = len(weight)
    model = nn.Linear(weight.shape[1], width)
    model.weight.data = weight
    group = CoupledGroup("g", width, (AxisSlice("weight", 0, "out", width),), (tuple(range(width)),), 1)
    return score(spec, group, model, graph_of([group], params={"weight": (AxisUnits(0, np.arange(width)[None]),)}))


def random_weight(width: int = 9, k: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn(width, k, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("p", [0.5, 1, 2, 3.5, float("inf")])
def test_lp_is_numpys_norm(p):
    weight = random_weight()
    expected = (np.abs(weight.double().numpy()) ** p).sum(1) ** (1 / p) if p != float("inf") else None
    expected = np.abs(weight.numpy()).max(1) if expected is None else expected
    spec = "lp(p=inf)" if p == float("inf") else f"lp(p={p})"
    np.testing.assert_allclose(one_layer(spec, weight).numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "p"), [("l1", 1), ("l2", 2)])
def test_the_named_norms_are_the_lp_norms(name, p):
    model, graph = mixed()
    for group in graph.free_groups:
        torch.testing.assert_close(score(name, group, model, graph), score(f"lp(p={p})", group, model, graph).float())


def test_lamp_by_its_definition():
    weight = random_weight()
    squares = weight.double().square().sum(1).numpy()
    expected = [value / squares[squares >= value].sum() for value in squares]
    np.testing.assert_allclose(one_layer("lamp", weight).numpy(), expected)


def test_kse_by_loops_over_channels_and_kernels():
    model, graph = chain()
    kernels = model.second.weight.detach().transpose(0, 1).flatten(2).numpy()  # (in, out, k)
    check_kse(score("kse(alpha=0.7, neighbours=2)", graph.group("first"), model, graph), kernels, 0.7, 2)


def test_kse_of_single_weights_by_nearest_neighbours():
    weight = random_weight(40, 6)
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 40)).eval()
    model[1].weight.data = weight
    graph = trace(model, torch.zeros(1, 3))
    check_kse(score("kse", graph.group("0"), model, graph), weight.T[:, :, None].numpy(), 1.0, 5)


def check_kse(found, kernels, alpha, neighbours):
    sparsity, entropy = [], []
    for channel in kernels:
        near = NearestNeighbors(n_neighbors=neighbours).fit(channel)
        density = near.kneighbors()[0].sum(1)  # of the training points themselves, without the point
        share = density / density.sum()
        sparsity.append(np.abs(channel).sum())
        entropy.append(-(share * np.log2(share)).sum())
    scaled = [(values - np.min(values)) / np.ptp(values) for values in (np.array(sparsity), np.array(entropy))]
    np.testing.assert_allclose(found.numpy(), np.sqrt(scaled[0] / (1 + alpha * scaled[1])), rtol=1e-3, atol=1e-3)


def test_csgd_keeps_one_filter_of_each_cluster_for_every_count():
    weight = random_weight(20, 4)
    order = one_layer("csgd_cluster", weight).argsort(descending=True)
    tree = linkage(weight.double().numpy(), method="ward")
    for count in range(1, 21):
        clusters = fcluster(tree, count, criterion="maxclust")
        assert len(set(clusters[order[:count].numpy()])) == len(set(clusters)) == count


def test_csgd_agrees_with_k_means_where_clusters_are_apart():
    centres = 10 * random_weight(5, 6, seed=1)
    weight = centres.repeat(4, 1) + 0.1 * random_weight(20, 6)
    labels = KMeans(5, n_init=10, random_state=0).fit_predict(weight.numpy())
    best = one_layer("csgd_cluster", weight).topk(5).indices
    assert sorted(labels[best.numpy()]) == [0, 1, 2, 3, 4]


def test_cosine_removes_the_smaller_of_the_most_similar_pair():
    weight = random_weight(12, 4)
    left, order = list(range(12)), []
    while len(left) > 1:
        similar = cosine_similarity(weight[left].double().numpy())
        np.fill_diagonal(similar, -np.inf)
        one, other = (left[i] for i in np.unravel_index(similar.argmax(), similar.shape))
        order.append(min(one, other, key=lambda unit: float(weight[unit].norm())))
        left.remove(order[-1])
    assert one_layer("cosine", weight).argsort().tolist() == order + left


def test_nisp_is_the_gradient_of_the_net_of_absolute_weights():
    model, graph = chain()
    first, second, head = (layer.weight.detach().double().abs() for layer in (model.first, model.second, model.head))
    x = torch.ones(1, first.shape[0], 3, 3, dtype=torch.float64, requires_grad=True)  # one patch of the second layer
    output = head @ nn.functional.conv2d(x, second)[0, :, 0, 0]
    (slope,) = torch.autograd.grad(output.sum(), x)
    expected = slope.sum(dim=(0, 2, 3))
    torch.testing.assert_close(score("nisp", graph.group("first"), model, graph), expected / expected.mean())


def test_nisp_of_a_residual_stream_sums_over_all_paths():
    """Against autograd through an absolute, linear version of the net, one position wide."""
    model, graph = mixed()
    weight = {name: value.detach().double().abs() for name, value in model.named_parameters()}
    flat = {name: value.flatten(2).sum(2) for name, value in weight.items() if value.ndim == 4}
    stream = torch.ones(8, dtype=torch.float64, requires_grad=True)
    split = torch.block_diag(*flat["split.weight"].chunk(2))
    after = stream + flat["inner.weight"] @ stream
    y = split @ after
    z = flat["join.weight"] @ torch.cat([y, flat["side.weight"] @ after, y])
    output = weight["head.weight"] @ z.repeat_interleave(4)
    slopes = torch.autograd.grad(output.sum(), [stream, y, z])
    for name, slope in zip(("stem", "split", "join"), slopes, strict=True):
        torch.testing.assert_close(score("nisp", graph.group(name), model, graph), slope / slope.mean())


def test_removal_scores_rise_strictly_and_sum_the_damage():
    scores = removal_scores([2, 0, 3, 1], [1.0, 0.0, -5.0, 2.0])
    assert scores[[2, 0, 3, 1]].tolist() == sorted(set(scores.tolist()))
    torch.testing.assert_close(scores[[2, 1]], torch.tensor([1.0, 3.0]))
    assert len(set(removal_scores(range(3000), [0.0] * 3000).tolist())) == 3000
