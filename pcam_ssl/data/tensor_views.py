"""Training views as batched tensor operations, on the device where the patches lie.

Views are drawn on the host by `views.Views.parameters`, so both engines draw the same view for the same key. Only what is done with the
numbers differs: OpenCV rounds to 8 bits after each step, these operations after the last.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import log2
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional

from pcam_ssl.data.views import ViewParameters

MOST_TAPS = 19
"""Longest blur kernel of the policy `strong` (strength 3)."""
MOST_HOLES = 3
# Columns of a packed view.
ELEMENT = 0
STAIN = slice(1, 10)
WARP = slice(10, 16)
BLUR = slice(16, 16 + MOST_TAPS)
HOLES = slice(BLUR.stop, BLUR.stop + 7 * MOST_HOLES)
STEPS = ("stain", "warp", "blur", "holes")
"""The steps after D4, in the order of the rows of `DrawnViews.changed`."""


class DrawnViews(NamedTuple):
    """Views of a batch that are drawn but not rendered. It stands in a batch for the patches until they are on the device.

    A tuple of few tensors: the loader sends each tensor of each batch through a file descriptor, and pins it.
    """

    patches: torch.Tensor
    """uint8 `[b, H, W, 3]`; or int64 `[b]`, places in pixels that lie on the device."""
    parameters: torch.Tensor
    """float32 `[b, HOLES.stop]`, one view a row."""
    changed: torch.Tensor
    """int64 `[4, b]`: for each of STEPS the views that it changes, then -1."""


def pack(patches: torch.Tensor, views: Sequence[ViewParameters]) -> DrawnViews:
    """The patches of a batch with the parameters of their views `[b]`."""
    packed = np.zeros((len(views), HOLES.stop), np.float32)
    changed = np.full((len(STEPS), len(views)), -1)
    for row, view in zip(packed, views, strict=True):
        row[ELEMENT] = view.element
        if view.stain is not None:
            row[STAIN] = view.stain.ravel()
        if view.warp is not None:
            row[WARP] = view.warp.ravel()
        if view.blur is not None:
            margin = (MOST_TAPS - len(view.blur)) // 2
            row[BLUR.start + margin : BLUR.stop - margin] = view.blur
        if view.holes is not None:
            row[HOLES.start : HOLES.start + view.holes.size] = view.holes.ravel()
    for places, step in zip(changed, STEPS, strict=True):
        those = [place for place, view in enumerate(views) if getattr(view, step) is not None]
        places[: len(those)] = those
    return DrawnViews(patches, torch.from_numpy(packed), torch.from_numpy(changed))


def render(patches: torch.Tensor, drawn: DrawnViews) -> torch.Tensor:
    """The drawn views uint8 `[b, H, W, 3]` of patches uint8 `[b, 3, H, W]`, on their device. Nothing waits for that device."""
    # Counts decide shapes, so they are read on the host, where the views were drawn.
    counts = (drawn.changed.numpy() >= 0).sum(1)
    taps = _taps(drawn.parameters.numpy()[:, BLUR])
    turned = bool((drawn.parameters.numpy()[:, ELEMENT] != 0).any())
    parameters = drawn.parameters.to(patches.device, non_blocking=True)
    changed = drawn.changed.to(patches.device, non_blocking=True)
    if turned:
        patches = turn(patches, parameters[:, ELEMENT].long())
    if not counts.any():
        return patches.permute(0, 2, 3, 1).contiguous()
    images = patches.float()
    arguments = (
        parameters[:, STAIN].unflatten(1, (3, 3)),
        parameters[:, WARP].unflatten(1, (2, 3)),
        parameters[:, taps],
        parameters[:, HOLES].unflatten(1, (MOST_HOLES, 7)),
    )
    for step, argument, places, count in zip((stain, warp, blur, erase), arguments, changed, counts, strict=True):
        if count == len(images):
            images = step(images, argument)
        elif count:
            places = places[:count]
            images[places] = step(images[places], argument[places])
    return images.permute(0, 2, 3, 1).contiguous().round_().to(torch.uint8)


def _taps(kernels: np.ndarray) -> slice:
    """The columns of the kernels `[b, MOST_TAPS]` that are not zero in all views."""
    used = np.flatnonzero(kernels.any(axis=0))
    return slice(BLUR.start + used[0], BLUR.start + used[-1] + 1) if len(used) else BLUR


@lru_cache(maxsize=8)
def _elements(size_px: int, device: torch.device) -> torch.Tensor:
    """For each element of D4 and each px of its view the px of the patch, int64 `[8, H * W]`."""
    places = torch.arange(size_px**2).view(size_px, size_px)
    turns = [torch.rot90(places, element % 4) for element in range(8)]
    return torch.stack([turn.flip(1) if element >= 4 else turn for element, turn in enumerate(turns)]).flatten(1).to(device)


def turn(patches: torch.Tensor, elements: torch.Tensor) -> torch.Tensor:
    """Patches `[b, 3, H, W]` under elements `[b]` of D4, as `views.dihedral` counts them; equal to it to the bit."""
    places = _elements(patches.shape[-1], patches.device)[elements]
    return patches.flatten(2).gather(2, places[:, None].expand(-1, 3, -1)).view_as(patches)


def stain(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Images `[n, 3, H, W]` of 0 to 255 with their optical density multiplied by matrices `[n, 3, 3]`, as `views.StainJitter` does."""
    # Base 2, whose power is several times as fast as that of e on CPU.
    density = images.clamp(min=1).log2_().sub_(log2(255))
    jittered = torch.empty_like(density)
    matrices = matrices[..., None, None]
    for colour in range(3):
        # Sums of three products, in this order: a matrix product may sum in another order where the batch has another size.
        sums = torch.mul(density[:, 0], matrices[:, 0, colour], out=jittered[:, colour])
        sums.addcmul_(density[:, 1], matrices[:, 1, colour]).addcmul_(density[:, 2], matrices[:, 2, colour])
    return jittered.clamp_(max=0).exp2_().mul_(255)


def warp(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Images `[n, 3, H, W]` resampled bilinearly at the places that matrices `[n, 2, 3]` name, in px; the border is reflected."""
    size_px = images.shape[-1]
    steps = torch.arange(size_px, dtype=images.dtype, device=images.device)
    across, down, shift = (part[:, None, None, :] for part in matrices.unbind(2))
    places = across * steps[:, None] + down * steps[:, None, None] + shift  # [n, H, W, 2]
    return functional.grid_sample(
        images, places.mul_(2 / (size_px - 1)).sub_(1), mode="bilinear", padding_mode="reflection", align_corners=True
    )


def blur(images: torch.Tensor, kernels: torch.Tensor) -> torch.Tensor:
    """Images `[n, 3, H, W]` under kernels `[n, 2r + 1]` along both axes; the border is reflected."""
    radius, size_px = kernels.shape[1] // 2, images.shape[-1]
    weights = kernels[:, :, None, None, None]
    for axis, border in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        padded = functional.pad(images, border, mode="reflect")
        images = padded.narrow(axis, 0, size_px) * weights[:, 0]
        for tap in range(1, kernels.shape[1]):
            images.addcmul_(padded.narrow(axis, tap, size_px), weights[:, tap])
    return images


def erase(images: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
    """Images `[n, 3, H, W]` with boxes `[n, k, 7]` (`ViewParameters.holes`) of one colour; an empty box changes nothing."""
    steps = torch.arange(images.shape[-1], device=images.device)
    for x, y, x_end, y_end, *colour in holes.permute(1, 2, 0)[..., None, None]:
        inside = (steps >= x) & (steps < x_end) & (steps[:, None] >= y) & (steps[:, None] < y_end)  # [n, H, W]
        images = torch.where(inside[:, None], torch.stack(colour, 1), images)
    return images
