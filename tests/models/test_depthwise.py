"""Depthwise convolutions with fast gradients: values and gradients are torch's, weights and names stay as they were."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from pcam_ssl.models import depthwise
from pcam_ssl.models.artefact import load_weights, save_weights
from pcam_ssl.models.depthwise import FastDepthwise, FastDepthwiseSame, speed_up_depthwise
from pcam_ssl.models.network import build_network, rebuild_network

CPU = torch.device("cpu")
# Kernels that blocks of 3 x 3 cover with and without overlap, strides, paddings, and lengths that the stride leaves a rest of.
SHAPES = [
    (kernel, stride, padding, size)
    for kernel, padding in ((3, 1), (4, 1), (5, 2), (5, 0), (6, 3), (7, 3), ((3, 5), (1, 2)), ((7, 2), (0, 1)))
    for stride in (1, 2, (2, 3))
    for size in (7, 8)
]


@pytest.fixture(autouse=True)
def on_x86(monkeypatch):
    monkeypatch.setattr(depthwise, "_has_slow_gradients", lambda: True)


def pair(kernel, stride, padding, kind=nn.Conv2d, dtype=torch.float32) -> tuple[nn.Conv2d, nn.Conv2d]:
    """A depthwise convolution of four channels, and the same one with fast gradients."""
    torch.manual_seed(0)
    plain = kind(4, 4, kernel, stride, padding, groups=4).to(dtype)
    fast = speed_up_depthwise(copy.deepcopy(plain), CPU)
    assert type(fast) in (FastDepthwise, FastDepthwiseSame)
    return plain, fast


def images(size: int, dtype=torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 4, size, size + 1, dtype=dtype, generator=generator)


def gradients(conv: nn.Conv2d, shown: torch.Tensor, autocast: bool = False) -> list[torch.Tensor]:
    """Output, and the gradients of images, weight and bias of a loss that weighs every output differently."""
    shown = shown.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        out = conv(shown)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return [out, *torch.autograd.grad((out * weights).sum(), (shown, conv.weight, conv.bias))]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), SHAPES)
def test_gradients_are_the_derivative(kernel, stride, padding, size):
    _, fast = pair(kernel, stride, padding, dtype=torch.float64)
    shown = images(size, torch.float64).requires_grad_()

    def output(shown, weight, bias):
        return depthwise.depthwise(shown, weight, bias, fast.stride, fast.padding)

    assert torch.autograd.gradcheck(output, (shown, fast.weight, fast.bias), fast_mode=True)


@pytest.mark.parametrize("kind", [nn.Conv2d, Conv2dSame])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), SHAPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_those_of_torch(kind, kernel, stride, padding, size, layout):
    plain, fast = pair(kernel, stride, padding, kind)
    shown = images(size).contiguous(memory_format=layout)
    for ours, theirs in zip(gradients(fast, shown), gradients(plain, shown), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), SHAPES)
def test_bf16_gradients_are_as_near_to_fp32_as_torch_s(kernel, stride, padding, size):
    plain, fast = pair(kernel, stride, padding)
    shown = images(size)
    exact = gradients(plain, shown)
    ours, theirs = gradients(fast, shown, autocast=True), gradients(plain, shown, autocast=True)
    torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=0)
    for mine, reference, truth in zip(ours[1:], theirs[1:], exact[1:], strict=True):
        assert mine.dtype == reference.dtype == torch.float32
        # bf16 keeps 8 bits, so one rounding is at most 1/256 of the largest value.
        rounding = truth.abs().max() / 256
        assert (mine - truth).abs().max() <= (reference - truth).abs().max() + rounding


def test_the_input_gradient_of_a_strided_bf16_convolution_leaves_torch_s_slow_way(monkeypatch):
    _, fast = pair(3, 2, 1)
    asked = []
    original = depthwise._torch_gradient
    monkeypatch.setattr(depthwise, "_torch_gradient", lambda *given: asked.append(given[-1]) or original(*given))
    gradients(fast, images(8), autocast=True)
    assert asked == [1]


def test_the_weight_gradient_of_a_large_kernel_is_asked_for_in_blocks(monkeypatch):
    _, fast = pair(5, 1, 2)
    sizes = []
    original = depthwise._torch_gradient
    monkeypatch.setattr(
        depthwise, "_torch_gradient", lambda *given: sizes.append((given[-1], *given[1].shape[2:])) or original(*given)
    )
    gradients(fast, images(8))
    assert sizes == [(0, 5, 5), *[(1, 3, 3)] * 4]


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, dilation=2),
        nn.Conv2d(4, 4, 3, groups=4, padding=3),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
    ],
    ids=["dense", "grouped", "more channels out", "dilated", "padded beyond the kernel", "padding by name", "reflected"],
)
def test_other_convolutions_stay(conv):
    assert type(speed_up_depthwise(conv, CPU)) is nn.Conv2d


def test_a_gpu_keeps_torch_s_gradients():
    conv = nn.Conv2d(4, 4, 3, groups=4)
    assert type(speed_up_depthwise(conv, torch.device("cuda"))) is nn.Conv2d


def test_another_processor_keeps_torch_s_gradients(monkeypatch):
    monkeypatch.setattr(depthwise, "_has_slow_gradients", lambda: False)
    assert type(speed_up_depthwise(nn.Conv2d(4, 4, 3, groups=4), CPU)) is nn.Conv2d


def test_shares_of_a_batch_add_up_to_its_gradient():
    _, fast = pair(5, 2, 2)
    shown = images(8)
    weight = torch.linspace(-1, 1, 2 * 4 * 4 * 5).view(2, 4, 4, 5)

    def gradient(rows) -> torch.Tensor:
        return torch.autograd.grad((fast(shown[rows]) * weight[rows]).sum(), fast.weight)[0]

    torch.testing.assert_close(gradient(slice(0, 1)) + gradient(slice(1, 2)), gradient(slice(0, 2)), rtol=1e-6, atol=1e-6)


def test_a_network_keeps_its_names_and_predictions():
    network = build_network("test_efficientnet", False, 32)
    names, shown = list(network.state_dict()), torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.no_grad():
        before = network(shown)["logit"]
        speed_up_depthwise(network, CPU)
        after = network(shown)["logit"]
    assert any(isinstance(part, FastDepthwise) for part in network.modules())
    assert list(network.state_dict()) == names
    assert torch.equal(before, after)


def test_a_saved_network_is_without(tmp_path):
    network = speed_up_depthwise(build_network("test_efficientnet", False, 32), CPU)
    save_weights(tmp_path, network)
    loaded = rebuild_network(network.config.to_dict())
    load_weights(tmp_path, loaded)
    assert not any(isinstance(part, FastDepthwise) for part in loaded.modules())
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in network.state_dict().items())
