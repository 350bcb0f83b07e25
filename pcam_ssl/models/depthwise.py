"""Depthwise convolutions whose gradients are fast on x86 CPUs. Values and gradients are those of torch, up to the order of sums.

oneDNN has fast kernels for most of a depthwise convolution, and falls back to kernels for dense groups, 10 to 100 times slower, for two
parts of its gradient: that of weights larger than 3 x 3, and that of the input where the stride is above 1 and the format is bf16.
Both are computed here from the parts that are fast.
"""

import platform

import torch
from timm.layers import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

BLOCK = 3
"""Side of the largest kernel whose weight gradient oneDNN computes fast."""


def speed_up_depthwise(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with fast depthwise gradients where it trains on an x86 CPU. Parameter names do not change, saved weights neither."""
    if device.type != "cpu" or not _has_slow_gradients():
        return module
    for part in module.modules():
        if type(part) in FAST and _is_depthwise(part):
            part.__class__ = FAST[type(part)]
    return module


def _has_slow_gradients() -> bool:
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


def _is_depthwise(conv: nn.Conv2d) -> bool:
    one_kernel_a_channel = conv.groups == conv.in_channels == conv.out_channels > 1
    plain = conv.dilation == (1, 1) and conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    # The input gradient is a convolution padded by kernel - 1 - padding, which must not be negative.
    return one_kernel_a_channel and plain and all(p < k for p, k in zip(conv.padding, conv.kernel_size, strict=True))


class FastDepthwise(nn.Conv2d):
    """`nn.Conv2d` with one kernel a channel."""

    def _conv_forward(self, images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return depthwise(images, weight, bias, self.stride, self.padding)


class FastDepthwiseSame(Conv2dSame):
    """timm's `Conv2dSame`, which pads as TensorFlow does, with one kernel a channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        padded = pad_same(images, self.kernel_size, self.stride, self.dilation)
        return depthwise(padded, self.weight, self.bias, self.stride, (0, 0))


FAST = {nn.Conv2d: FastDepthwise, Conv2dSame: FastDepthwiseSame}


def depthwise(
    images: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple[int, int], padding: tuple[int, int]
) -> torch.Tensor:
    """`functional.conv2d` of images `[B, C, H, W]` by one kernel a channel `[C, 1, h, w]`, in the format of autocast."""
    if torch.is_autocast_enabled("cpu"):
        # Autocast does not reach into an autograd function.
        format_ = torch.get_autocast_dtype("cpu")
        images, weight, bias = images.to(format_), weight.to(format_), None if bias is None else bias.to(format_)
    return _Depthwise.apply(images, weight, bias, stride, padding)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images, weight, bias, stride, padding):
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_images, of_weight, of_bias, *_ = ctx.needs_input_grad
        return (
            images_gradient(images, weight, gradient, ctx.stride, ctx.padding) if of_images else None,
            weight_gradient(images, weight, gradient, ctx.stride, ctx.padding) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
            None,
            None,
        )


def images_gradient(images, weight, gradient, stride, padding) -> torch.Tensor:
    """Gradient of the images: for a stride above 1 in bf16, the flipped kernels over the output's gradient with zeros put between."""
    if max(stride) == 1 or gradient.dtype != torch.bfloat16:
        return _torch_gradient(images, weight, gradient, stride, padding, 0)
    height, width = (n + 2 * p - k + 1 for n, p, k in zip(images.shape[2:], padding, weight.shape[2:], strict=True))
    # Made channels last, because a conversion costs as much as the convolution.
    spread = gradient.new_zeros(len(gradient), height, width, len(weight)).permute(0, 3, 1, 2)
    spread[:, :, :: stride[0], :: stride[1]] = gradient
    around = [kernel - 1 - pad for kernel, pad in zip(weight.shape[2:], padding, strict=True)]
    return functional.conv2d(spread, weight.flip(2, 3), padding=around, groups=len(weight))


def weight_gradient(images, weight, gradient, stride, padding) -> torch.Tensor:
    """Gradient of the weights: that of a kernel above 3 x 3 in blocks of 3 x 3, each over the part of the images that it meets."""
    if max(weight.shape[2:]) <= BLOCK:
        return _torch_gradient(images, weight, gradient, stride, padding, 1)
    (top, left), (h, w), (down, right) = padding, weight.shape[2:], stride
    # Rows and columns that the first position of the kernel meets, over all positions of the output.
    rows, columns = (gradient.shape[2] - 1) * down + 1, (gradient.shape[3] - 1) * right + 1
    below, beside = rows + h - 1 - top - images.shape[2], columns + w - 1 - left - images.shape[3]
    padded = functional.pad(images, (left, beside, top, below))
    whole = torch.empty_like(weight)
    for y in _blocks(h):
        for x in _blocks(w):
            part = whole[:, :, y : y + BLOCK, x : x + BLOCK]
            met = padded[:, :, y : y + rows + part.shape[2] - 1, x : x + columns + part.shape[3] - 1]
            met = met.contiguous(memory_format=torch.channels_last)
            part.copy_(_torch_gradient(met, part, gradient, stride, (0, 0), 1))
    return whole


def _blocks(length: int) -> list[int]:
    """Where the blocks of a kernel start; the last overlaps the one before where 3 does not divide the length."""
    return [*range(0, length - BLOCK, BLOCK), max(0, length - BLOCK)]


def _torch_gradient(images, weight, gradient, stride, padding, which: int) -> torch.Tensor:
    """torch's own gradient of a depthwise convolution: 0 of the images, 1 of the weights."""
    wanted = [number == which for number in range(3)]
    return torch.ops.aten.convolution_backward(
        gradient, images, weight, None, stride, padding, (1, 1), False, (0, 0), len(weight), wanted
    )[which]
