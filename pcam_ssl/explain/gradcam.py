"""Grad-CAM of convolutional networks and vision transformers (Selvaraju et al. 2017, arXiv:1610.02391)."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from torch import nn

from pcam_ssl.data.batches import EvalStream, load
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.explain.centre import centre_share
from pcam_ssl.explain.explanation import toward
from pcam_ssl.models.inference import dihedral
from pcam_ssl.models.network import Network

VIEWS = 8


class GradCam:
    """Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of the logit, on the last feature map before pooling.

    In a vision transformer the feature map is the patch tokens at the entrance of the last block's attention, arranged as their grid.
    After that attention the class token does not depend on them, and their gradient is zero. Where the head sees pooled stages beside
    the last one, the maps of all stages are added up. Deviation from the paper: maps keep their
    sign, so that one map serves both classes; `toward` takes the part that supports one.
    Raises UserError where the backbone has neither a feature map nor such blocks.
    """

    def __init__(self, network: Network):
        self.network = network.eval()
        self.features: torch.Tensor | None = None

    def __call__(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 `[B, H, W, 3]` to logits `[B]` and signed maps `[B, h, w]`, positive where the patch supports class 1."""
        images = self.network.prepare(pixels).requires_grad_()
        with torch.enable_grad():
            stages, logits = self._stages_and_logit(images)
            features, self.features = self.features, None  # [B, D, h, w]
            kept = [features, *stages]
            gradients = torch.autograd.grad(logits.sum(), kept)
        maps = [(each.mean((2, 3), keepdim=True) * found).sum(1).detach() for each, found in zip(gradients, kept, strict=True)]
        return logits.detach(), _summed(maps)

    def _stages_and_logit(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Feature maps of earlier stages that the head sees beside the last one, and the logits `[B]`.

        The maps are copies without a past, so that their gradient is what the head sees of them, not what later stages make of them.
        """
        if self.network.config.layers == "last":
            return [], self._logit(images)
        last, maps = self.network.stage_maps(images)
        copies = [each.detach().requires_grad_() for each in maps]
        pooled = [each.mean((2, 3)) for each in copies]
        features = torch.cat([*pooled, self.network.backbone.forward_head(self._feature_map(last))], 1)
        return copies, self._head(features)

    def _head(self, features: torch.Tensor) -> torch.Tensor:
        return self.network.head(self.network.scaled(features)).squeeze(1)

    def _logit(self, images: torch.Tensor) -> torch.Tensor:
        backbone = self.network.backbone
        if hasattr(backbone, "blocks") and hasattr(backbone.blocks[-1], "norm1"):
            with _passing(backbone.blocks[-1].norm1, self._tokens):
                features = self.network.pool(backbone(images))
        else:
            features = backbone.forward_head(self._feature_map(backbone.forward_features(images)))
        return self._head(features)

    def _grid(self, features: torch.Tensor) -> torch.Tensor:
        """Keep the feature map `[B, D, h, w]`, and return it."""
        self.features = features
        return features

    def _feature_map(self, features: torch.Tensor) -> torch.Tensor:
        if not isinstance(features, torch.Tensor) or features.ndim != 4:
            raise self._no_map()
        channels_last = getattr(self.network.backbone, "output_fmt", "NCHW") == "NHWC"
        return self._channels_last(features) if channels_last else self._grid(features)

    def _channels_last(self, features: torch.Tensor) -> torch.Tensor:
        """Keep features `[B, h, w, D]` as a grid, and return them."""
        return self._grid(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    def _tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Keep the patch tokens of `[B, T, D]` as a grid, and return all tokens; class and register tokens come first. Some blocks use `[B, h, w, D]`."""
        if tokens.ndim == 4:
            return self._channels_last(tokens)
        # Some backbones count a class token that is added only after their blocks.
        extra = next(
            (n for n in (getattr(self.network.backbone, "num_prefix_tokens", 0), 0) if _is_square(tokens.shape[1] - n)), None
        )
        if extra is None:
            raise self._no_map()
        side = isqrt(tokens.shape[1] - extra)
        grid = tokens[:, extra:].transpose(1, 2).unflatten(2, (side, side))  # [B, D, h, w]
        return torch.cat([tokens[:, :extra], self._grid(grid).flatten(2).transpose(1, 2)], dim=1)

    def _no_map(self) -> UserError:
        return UserError(
            f"explain: {self.network.config.name} has no feature map for Grad-CAM; explain a run of a convolutional network or a vision transformer"
        )


def _summed(maps: list[torch.Tensor]) -> torch.Tensor:
    """The sum of maps `[B, h, w]` of several sizes, at the size of the finest; each keeps its total."""
    if len(maps) == 1:
        return maps[0]
    height, width = max(each.shape[1:] for each in maps)
    total = 0.0
    for each in maps:
        fine = nn.functional.interpolate(each[:, None].float(), (height, width), mode="bilinear", align_corners=False)[:, 0]
        total = total + fine * (each.shape[1] * each.shape[2] / (height * width))
    return total


def _is_square(number: int) -> bool:
    return isqrt(number) ** 2 == number


@contextmanager
def _passing(module: nn.Module, change: Callable[[torch.Tensor], torch.Tensor]):
    """Replace the output of a module by `change` of it, within the block."""
    handle = module.register_forward_hook(lambda module, given, output: change(output))
    try:
        yield
    finally:
        handle.remove()


@dataclass(frozen=True)
class ViewsOfPatches:
    """Logits of class 1 and maps of N patches under the eight D4 views."""

    logits: np.ndarray
    """float64 `[N, 8]`."""
    maps: np.ndarray
    """float64 `[N, 8, h, w]`: signed maps, turned back to the orientation of the patch."""


def explain_views(cam: GradCam, pixels: torch.Tensor) -> ViewsOfPatches:
    """Logits and maps of uint8 `[N, H, H, 3]` under the eight D4 views."""
    logits, maps = zip(*(cam(dihedral(pixels, element)) for element in range(VIEWS)), strict=True)
    turned = [turn_back(each, element) for element, each in enumerate(maps)]
    return ViewsOfPatches(_float64(torch.stack(logits, 1)), _float64(torch.stack(turned, 1)))


def turn_back(maps: torch.Tensor, element: int) -> torch.Tensor:
    """Undo element 0..7 of D4 on maps `[B, h, w]`."""
    return torch.rot90(maps.flip(2) if element >= 4 else maps, -(element % 4), (1, 2))


def view_logits(network: Network, pixels: torch.Tensor) -> np.ndarray:
    """Mean logit float64 `[N]` of uint8 `[N, H, H, 3]` over the eight D4 views."""
    with torch.inference_mode():
        return _float64(torch.stack([network(dihedral(pixels, element))["logit"] for element in range(VIEWS)]).mean(0))


def _float64(values: torch.Tensor) -> np.ndarray:
    return values.cpu().double().numpy()  # MPS has no float64


def centre_shares(
    cam: GradCam,
    pixels: Pixels,
    rows: np.ndarray,
    *,
    size_px: int,
    batch_size: int,
    device: torch.device,
    workers: int = 0,
    advance: Callable[[int], None] = lambda n: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits `[N]` of class 1 of the patches `rows`, and centre shares `[N]` of the evidence for the call (NaN for a flat map)."""
    stream = EvalStream(pixels, np.asarray(rows), np.zeros(len(rows), np.uint64), batch_size, None, 0, 0)
    logits, shares = np.empty(len(rows)), np.empty(len(rows))
    for batch in load(stream, range(len(stream)), workers, device):
        place = batch["place"].numpy()
        batch_logits, maps = (values.cpu().double().numpy() for values in cam(batch["pixels"].to(device, non_blocking=True)))
        logits[place] = batch_logits
        shares[place] = centre_share(toward(maps, batch_logits >= 0), size_px)
        advance(len(place))
    return logits, shares
