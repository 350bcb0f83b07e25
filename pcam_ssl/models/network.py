"""A network: timm backbone and heads. It takes uint8 pixels, normalises them by its own buffers, and returns embedding and logit."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import nn
from torch.nn import functional

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.models.backbone import build_backbone, create_backbone, resolve_backbone

TOKEN_RULES = ("cls", "mean", "cls+mean")
"""How the tokens of a vision transformer become one vector: the class token; the mean of the patch tokens; both, side by side."""


def pool_tokens(tokens: torch.Tensor, rule: str, n_prefix: int) -> torch.Tensor:
    """One vector `[B, D]` of tokens `[B, T, D]`, or `[B, 2 D]` by the rule cls+mean.

    The first `n_prefix` tokens are no patches: the class token, then register tokens, which no rule uses (Darcet et al. 2024,
    arXiv:2309.16588).
    """
    if rule == "cls":
        return tokens[:, 0]
    mean = tokens[:, n_prefix:].mean(1)
    return mean if rule == "mean" else torch.cat([tokens[:, 0], mean], dim=1)


def token_width(rule: str | None) -> int:
    """How many times as wide as a token the vector of a rule is; 1 without a rule."""
    return 2 if rule == "cls+mean" else 1


@dataclass(frozen=True)
class NetworkConfig:
    """The arguments that rebuild a network without its weights. `architecture` is timm's name, never a hub address."""

    architecture: str
    arguments: dict[str, Any]
    image_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    projection: int | None = None
    interpolation: str = "bilinear"
    """How patches are resized. Older artefacts lack the key; their patches were resized bilinearly."""
    tokens: str | None = None
    """The rule that makes an embedding of the backbone's tokens (`pool_tokens`). None, as in older artefacts: the backbone pools by itself."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Network(nn.Module):
    """Backbone and linear head, with `config.projection` also an embedding head. Takes uint8 patches `[B, H, W, 3]` of any square size.

    With `config.image_size` patches are resized on the device, by the interpolation of the backbone's training, antialiased.
    """

    def __init__(self, backbone: nn.Module, config: NetworkConfig, drop_rate: float = 0.0):
        super().__init__()
        self.config = config
        self.backbone = backbone
        features = getattr(backbone, "head_hidden_size", backbone.num_features) * token_width(config.tokens)
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(features, 1)
        self.projection = nn.Linear(features, config.projection) if config.projection else None
        self.embedding_size = config.projection or features
        # Pixels are on the scale 0..255, so mean and std are too.
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config.std).view(1, 3, 1, 1))
        self.backbone_frozen = False

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone. The batch norms of a frozen backbone keep their statistics."""
        self.backbone_frozen = frozen
        self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.backbone_frozen:
            self.backbone.eval()
        return self

    def prepare(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 `[B, H, W, 3]` to normalised float `[B, 3, S, S]`, channels last in memory."""
        images = pixels.permute(0, 3, 1, 2).float()
        size, mode = self.config.image_size, self.config.interpolation
        if size is not None and images.shape[-1] != size:
            images = functional.interpolate(images, (size, size), mode=mode, antialias=True, align_corners=False)
            if mode == "bicubic":
                # Bicubic overshoots at edges; the 8-bit training images of the backbones never left 0..255.
                images = images.clamp(0, 255)
        return (images - self.mean) / self.std

    def pool(self, output: torch.Tensor) -> torch.Tensor:
        """Features `[B, D]` of the backbone's output, which is tokens `[B, T, D]` where the config has a rule for them."""
        return output if self.config.tokens is None else pool_tokens(output, self.config.tokens, self.backbone.num_prefix_tokens)

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logit` `[B]` of class 1 and `embedding` `[B, D]` of unit length, which is the projection, or else the pooled features."""
        features = self.pool(self.backbone(self.prepare(pixels)))
        embedding = self.projection(features) if self.projection is not None else features
        return {
            "embedding": functional.normalize(embedding.float(), dim=1),
            "logit": self.head(self.dropout(features)).squeeze(1).float(),
        }


def build_network(
    name: str,
    pretrained: bool,
    size_px: int,
    image_size: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    projection: int | None = None,
) -> Network:
    """A new network for patches of `size_px`, with an embedding head of `projection` dimensions where given.

    Raises UserError for an unknown backbone, weights that cannot be reached, or a size that the backbone cannot take.
    """
    resolved = resolve_backbone(name, pretrained)
    arguments = {**resolved.arguments, **({"drop_path_rate": drop_path_rate} if drop_path_rate else {})}
    if resolved.defaults.get("fixed_input_size"):
        # The position embeddings of a vision transformer are for one size; timm resamples them for another.
        image_size = image_size or resolved.defaults["input_size"][-1]
        arguments["img_size"] = image_size
    if resolved.tokens is not None:
        arguments["global_pool"] = ""
    mean, std = (
        resolved.defaults.get(key, default) for key, default in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD))
    )
    # torch antialiases only these two. Bicubic is timm's default where a backbone states none.
    interpolation = "bilinear" if resolved.defaults.get("interpolation") == "bilinear" else "bicubic"
    config = NetworkConfig(
        resolved.architecture, arguments, image_size, tuple(mean), tuple(std), name, projection, interpolation, resolved.tokens
    )
    backbone = create_backbone(resolved, pretrained, arguments)
    if resolved.tokens is None and arguments.get("global_pool") == "":
        raise UserError(
            f"model.name: {name} was saved without pooling; copy it to a folder, set global_pool in its config.json (token, or avg), and name local-dir:PATH"
        )
    network = Network(backbone, config, drop_rate).eval()
    try:
        with torch.no_grad():
            network(torch.zeros(1, size_px, size_px, 3, dtype=torch.uint8))
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"model.image_size: {name} cannot take {image_size or size_px} px ({first_line(error)}); set another size"
        ) from None
    return network


def rebuild_network(config: dict[str, Any]) -> Network:
    """The network of a saved config, with random weights."""
    saved = NetworkConfig(**{**config, "mean": tuple(config["mean"]), "std": tuple(config["std"])})
    return Network(build_backbone(saved.architecture, saved.arguments), saved)
