"""Which models are taken: wrappers come off, and what is no plain network is told the call that makes it one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import nasprune
from nasprune.common.accepted import accepted
from nasprune.errors import InputError

IMAGE = torch.randn(1, 3, 8, 8)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))


@pytest.fixture
def one_process(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_wrappers_come_off():
    inner = net()
    for wrapped in (
        nn.DataParallel(inner),
        nn.parallel.DistributedDataParallel(inner),
        torch.compile(nn.DataParallel(inner), backend="eager"),
    ):
        assert accepted(wrapped) is inner
    assert type(nasprune.search(nn.DataParallel(inner), IMAGE, "60%", trials=3).model) is nn.Sequential


def prepared() -> nn.Module:
    from torch.ao import quantization

    model = net().train()
    model.qconfig = quantization.get_default_qat_qconfig()
    return quantization.prepare_qat(model)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return net()


REFUSED = {
    "scripted": (lambda: torch.jit.script(net()), "TorchScript module.*give the Python network"),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 1)), "holds '0', which is a lazy module.*run the network once"),
    "meta": (on_meta, "meta device and has no values; make room for them first"),
    "quantised": (prepared, "quantised, or prepared for it; search the network before"),
    "wrapped inside": (lambda: nn.Sequential(nn.DataParallel(net())), "holds '0', which is a wrapper"),
    "function": (lambda: lambda x: x, "must be a torch.nn.Module, got the function '<lambda>'; wrap what it computes"),
    "name": (lambda: "resnet18", "got the str 'resnet18'; give the network itself; by name"),
    "state dict": (lambda: net().state_dict(), "a state dict has no code"),
    "class": (lambda: nn.Linear, r"got the class Linear; give an instance: Linear\(...\)"),
    "exported": (lambda: torch.export.export(net(), (IMAGE,)), "give the network that it was exported from"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_others_are_told_what_to_do(make, message):
    model = make()
    for function in (nasprune.trace, nasprune.search):
        with pytest.raises(InputError, match=message):
            function(model, IMAGE)


def test_what_is_sharded_is_to_be_gathered():
    class FSDPModule(nn.Module):
        pass

    class Sharded(FSDPModule):
        pass

    with pytest.raises(InputError, match="sharded over several processes; gather it first"):
        accepted(Sharded())


def test_pruning_masks_stay_and_are_cut_with_their_weights():
    model = net()
    prune.l1_unstructured(model[2], "weight", amount=0.3)
    result = nasprune.search(model, IMAGE, "60%", trials=3)
    assert result.report.proof.ok
    assert result.model[2].weight_mask.shape == result.model[2].weight_orig.shape


class ToBePrepared(nn.Module):
    """Written for quantisation, and not prepared for it yet."""

    def __init__(self):
        super().__init__()
        self.quant, self.dequant = torch.ao.quantization.QuantStub(), torch.ao.quantization.DeQuantStub()
        self.a, self.b, self.sum = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), torch.ao.nn.quantized.FloatFunctional()
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.a(self.quant(x))
        return self.dequant(self.head(self.sum.add(x, self.b(x).relu())))


def test_operators_that_can_be_quantised_later_are_taken():
    result = nasprune.search(ToBePrepared(), IMAGE, "60%", trials=3)
    assert result.model.a.out_channels < 16
    prepared = nn.Sequential(ToBePrepared().sum)
    prepared[0].activation_post_process = torch.ao.quantization.MinMaxObserver()  # as torch prepares it
    with pytest.raises(InputError, match=r"holds '0\.activation_post_process', which is quantised, or prepared"):
        accepted(prepared)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_models_of_any_precision_take_data_of_any_other(kind, given):
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    images = torch.randn(20, 3, 8, 8).to(given).numpy(), torch.arange(20) % 4
    for options in ({}, {"data": images}, {"data": images, "evaluator": "kl"}):
        result = nasprune.search(model.to(kind), IMAGE, "70%", trials=2, **options)
        assert result.report.proof.ok
        assert result.model[0].weight.dtype == kind
