"""Scorers of operations against second routes: finite differences, real removal, hand-worked numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nasprune import InputError
from nasprune.supernet.genotype.operations import OPERATIONS
from nasprune.supernet.score.naming import op_scorer
from nasprune.supernet.score.task import ScoringTask
from nasprune.supernet.structure.sample import SampleSupernet, sample_structure
from tests.supernet.score.edges import Edges, structure_of, task_of


def images(count: int = 8, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(8, 3, 8, 8, generator=generator), torch.arange(8) % 4) for _ in range(count)]


@pytest.fixture(scope="module")
def sample():
    return sample_structure(SampleSupernet().eval())


def quiet(structure):
    """Only the first choice, whose candidates are all functions of their input."""
    return structure.choices[0]


def test_gate_taylor_and_fisher_by_finite_differences(sample):
    data = images(3)
    doubled = [(x.double(), y) for x, y in data]
    exact = ScoringTask(sample, doubled, doubled, 0)
    exact.net.double()
    choice = quiet(sample)
    taylor = op_scorer("gate_taylor").score(exact)[choice.name]
    fisher = op_scorer("gate_fisher").score(exact)[choice.name]

    def loss(x: Tensor, y: Tensor, op: int, gate: float) -> float:
        gates = torch.ones(len(choice.ops), dtype=torch.float64)
        gates[op] = gate
        torch.manual_seed(0)
        with torch.no_grad(), exact.gated({choice.name: gates}):
            return float(exact.loss(exact.net(x), y))

    def slope(x: Tensor, y: Tensor, op: int) -> float:
        return (loss(x, y, op, 1 + 1e-4) - loss(x, y, op, 1 - 1e-4)) / 2e-4

    with torch.random.fork_rng(devices=[]):
        for op in range(len(choice.ops)):
            slopes = torch.tensor([slope(x, y, op) for x, y in doubled])
            assert float(taylor[op]) == pytest.approx(float(slopes.abs().mean()), rel=1e-3, abs=1e-7)
            assert float(fisher[op]) == pytest.approx(float(slopes.square().mean()), rel=1e-3, abs=1e-9)


def test_fisher_per_image_is_the_mean_square_of_single_gradients():
    torch.manual_seed(0)
    net = Edges([[nn.Linear(3, 3, bias=False), nn.Identity()]], nn.Linear(3, 2)).eval()
    structure = structure_of(net, torch.randn(4, 3), ("linear", "skip_connect"))
    x, y = torch.randn(6, 3), torch.arange(6) % 2
    found = op_scorer("gate_fisher(per=image)").score(task_of(structure, [(x, y)]))["edge0"]
    expected = torch.zeros(2)
    for one, label in zip(x, y, strict=True):
        gates = torch.ones(2, requires_grad=True)
        mixed = 0.5 * (gates[0] * net.edges[0][0](one[None]) + gates[1] * one[None])
        (slope,) = torch.autograd.grad(functional.cross_entropy(net.head(mixed), label[None]), gates)
        expected += slope.square() / 6
    torch.testing.assert_close(found.float(), expected)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_perturbation_is_the_harm_of_replacing_the_candidate_by_zeros(sample, metric):
    data = images(2)
    found = op_scorer(f"perturbation(metric={metric}, errors=0)").score(task_of(sample, data))

    class Zeros(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x)

    def harm(replace: int | None) -> float:
        task = task_of(sample, data)
        if replace is not None:
            for cell in task.net.cells:
                cell[0][replace] = Zeros()
        for module in task.net.modules():
            module.train(isinstance(module, nn.BatchNorm2d))
        total = 0.0
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            for x, y in data:
                logits = task.net(x)
                wrong = (logits.argmax(1) != y).float().mean()
                total += float(functional.cross_entropy(logits, y) if metric == "loss" else wrong) / len(data)
        return total

    for op in sample.choices[0].connecting:
        assert float(found["edge0"][op]) == pytest.approx(harm(op) - harm(None), abs=1e-6)


def test_perturbation_counts_only_what_exceeds_its_error(sample):
    data = images(3)
    plain, shrunk, none = (
        op_scorer(f"perturbation(errors={errors})").score(task_of(sample, data))["edge0"] for errors in (0, 0.5, 1e6)
    )
    shares = task_of(sample, data).shares(sample.choices[0]).double()
    for op in sample.choices[0].connecting:
        tie = 1e-9 * float(shares[op])
        assert float(none[op]) == pytest.approx(tie, rel=1e-6)
        assert abs(float(shrunk[op]) - tie) < abs(float(plain[op]))
        assert (float(shrunk[op]) - tie) * float(plain[op]) >= 0
    with pytest.raises(InputError, match="errors"):
        op_scorer("perturbation(errors=-1)")


def test_perturbation_logs_progress_and_refuses_nonsense(sample, caplog):
    with caplog.at_level("INFO", logger="nasprune"):
        op_scorer("perturbation(batches=1)").score(task_of(sample, images(3)))
    assert "choice 2 of 2, edge1" in caplog.text
    with pytest.raises(InputError, match="loss or accuracy"):
        op_scorer("perturbation(metric=f1)")
    broken = [(torch.full((8, 3, 8, 8), torch.nan), torch.arange(8) % 4)]
    with pytest.raises(InputError, match="not finite"):
        op_scorer("perturbation").score(task_of(sample, broken))


def test_synflow_by_hand_on_a_linear_chain():
    """R = 1^T |C| (|A| + I) / 2 |S| 1; without a candidate its half of it is missing."""
    torch.manual_seed(0)
    stem, inner, head = nn.Linear(3, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    net = Edges([[inner, nn.Identity()]], head, stem).eval()
    structure = structure_of(net, torch.randn(4, 3), ("linear", "skip_connect"))
    found = op_scorer("synflow").score(task_of(structure))["edge0"]
    a, c, s = (layer.weight.detach().double().abs() for layer in (inner, head, stem))
    ones = torch.ones(3, dtype=torch.float64)
    flows = torch.stack([(c @ a @ s @ ones).sum(), (c @ s @ ones).sum()])
    torch.testing.assert_close(found, flows / flows.sum())


def test_synflow_is_what_the_flow_loses_and_keeps_the_mixture():
    torch.manual_seed(0)
    ops = [OPERATIONS[name](4, 1, True) for name in ("skip_connect", "nor_conv_3x3", "avg_pool_3x3")]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    net = Edges([ops], head, nn.Conv2d(3, 4, 1)).eval()
    net.alphas[0].data = torch.tensor([0.5, -2.0, 1.0])
    structure = structure_of(net, torch.randn(4, 3, 8, 8), ("skip_connect", "nor_conv_3x3", "avg_pool_3x3"))
    found = op_scorer("synflow").score(task_of(structure))["edge0"]

    def flow(gates: list[float]) -> float:
        task = task_of(structure)
        task.net.double()
        for name, value in task.net.named_parameters():
            if "alphas" not in name:
                value.data.abs_()
        task.net.edges[0][1].op[2] = nn.Identity()
        with torch.no_grad(), task.gated({"edge0": torch.tensor(gates, dtype=torch.float64)}):
            return float(task.net(torch.ones(1, 3, 8, 8, dtype=torch.float64)).sum())

    whole = flow([1.0, 1.0, 1.0])
    for op in range(3):
        without = flow([float(op != other) for other in range(3)])
        assert float(found[op]) == pytest.approx((whole - without) / whole, rel=1e-9)


def test_nwot_by_formula_on_a_net_without_the_candidate():
    torch.manual_seed(0)
    edge = [nn.Linear(5, 6), nn.Linear(5, 6, bias=False), nn.Linear(5, 6)]
    net = Edges([edge], nn.Sequential(nn.ReLU(), nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 2))).eval()
    structure = structure_of(net, torch.randn(9, 5), ("a", "b", "c"))
    found = op_scorer("nwot").score(task_of(structure))["edge0"]

    def score(left: list[int]) -> float:
        x = sum(edge[op](structure.inputs[0]) for op in left) / 3
        kernel = torch.zeros(9, 9, dtype=torch.float64)
        for layer in net.head:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                code = (x > 0).double()
                kernel += code @ code.T + (1 - code) @ (1 - code).T
        kernel += 1e-6 * kernel.diagonal().mean() * torch.eye(9)
        return float(torch.linalg.slogdet(kernel).logabsdet)

    with torch.no_grad():
        for op in range(3):
            without = score([other for other in range(3) if other != op])
            assert float(found[op]) == pytest.approx(score([0, 1, 2]) - without, rel=1e-5, abs=1e-6)


def test_nwot_sees_functions_and_refuses_nets_without_relus():
    class Rectified(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return functional.relu(x)

    torch.manual_seed(0)
    candidates = [nn.Linear(4, 4), nn.Identity()]
    scores = []
    for end in (Rectified(), nn.ReLU(), nn.ReLU(inplace=True), nn.Tanh()):
        net = Edges([candidates], nn.Sequential(end, nn.Linear(4, 2))).eval()
        structure = structure_of(net, torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), ("a", "skip"))
        if isinstance(end, nn.Tanh):
            with pytest.raises(InputError, match="ReLU"):
                op_scorer("nwot").score(task_of(structure))
        else:
            scores.append(op_scorer("nwot").score(task_of(structure))["edge0"])
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


class Weighted:
    """The part of a task that reads architecture weights."""

    def __init__(self, structure, logits=None, shares=None, edges=None) -> None:
        self.choices = structure.choices
        self._logits, self._shares = logits or {}, shares or {}
        self._edges = edges or {}

    def logits(self, choice):
        return self._logits.get(choice.name)

    def shares(self, choice):
        return self._shares.get(choice.name)

    def edge_weight(self, choice):
        return self._edges.get(choice.name)


def log(*shares: float) -> Tensor:
    return torch.tensor(shares).log()


def test_alpha_rules_by_hand(sample):
    logits = {"edge0": log(0.5, 0.2, 0.1, 0.2), "edge1": log(0.6, 0.3, 0.1) + 5}
    task = Weighted(sample, logits, edges={"edge0": 0.25, "edge1": 0.75})

    def scores(rule: str) -> list[float]:
        return torch.cat(list(op_scorer(f"alpha(rule={rule})").score(task).values())).tolist()

    assert scores("darts") == pytest.approx([0.5, 0.2, 0.1, 0.2, 0.6, 0.3, 0.1])
    assert scores("no_none") == pytest.approx([0.0, 0.4, 0.2, 0.4, 0.6, 0.3, 0.1])
    low = torch.tensor(0.1).log()
    assert scores("logit") == pytest.approx((torch.cat(list(logits.values())) - low).tolist(), abs=1e-6)
    assert scores("alpha_beta") == pytest.approx([0.125, 0.05, 0.025, 0.05, 0.45, 0.225, 0.075])


def test_alpha_says_what_is_missing(sample):
    shares = {"edge0": torch.tensor([0.5, 0.2, 0.1, 0.2]), "edge1": torch.tensor([0.6, 0.3, 0.1])}
    task = Weighted(sample, shares=shares)
    assert op_scorer("alpha").score(task)["edge1"].tolist() == pytest.approx([0.6, 0.3, 0.1])
    with pytest.raises(InputError, match="before the softmax are unknown"):
        op_scorer("alpha(rule=logit)").score(task)
    with pytest.raises(InputError, match="weight of the edge"):
        op_scorer("alpha(rule=alpha_beta)").score(task)
    with pytest.raises(InputError, match="unknown; give `weights=`"):
        op_scorer("alpha").score(Weighted(sample))


def test_flops_order_gives_places(sample):
    scores = op_scorer("flops_order").score(task_of(sample))
    assert scores["edge0"].tolist() == [0, 2, 3, 1]  # none, skip, conv3x3, pool
    assert scores["edge1"].tolist() == [2, 3, 1]  # skip, conv1x1, noise


def test_random_depends_on_the_seed(sample):
    first, second = (op_scorer("random").score(task_of(sample, seed=seed)) for seed in (0, 1))
    assert not torch.equal(first["edge0"], second["edge0"])
