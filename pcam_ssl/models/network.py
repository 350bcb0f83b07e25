"""A network: timm backbone and heads. It takes uint8 pixels, normalises them by its own buffers, and returns embedding and logit."""

from collections.abc import Sequence
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
    layers: str = "last"
    """`last`: the backbone's pooled last stage; `stages`: the pooled outputs of all stages side by side."""
    standardised: bool = False
    """Whether heads see features with mean 0 and standard deviation 1 (over the training patches)."""
    hidden: int | None = None
    """Hidden units of an MLP classifier; None for a linear one."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Network(nn.Module):
    """Backbone, classifier, and with `config.projection` also an embedding head. Takes uint8 patches `[B, H, W, 3]` of any square size.

    It also takes features float `[B, D]` of its backbone, as `features` returns them. So heads are trained on cached features, and such a
    network needs no `backbone` (None). With `config.image_size` patches are resized on the device, by the interpolation of the
    backbone's training, antialiased.
    """

    def __init__(self, backbone: nn.Module | None, config: NetworkConfig, drop_rate: float = 0.0, features: int | None = None):
        super().__init__()
        self.config = config
        self.backbone = backbone
        self.n_features = feature_count(backbone, config) if features is None else features
        self.dropout = nn.Dropout(drop_rate)
        self.head = _classifier(self.n_features, config.hidden, drop_rate)
        self.projection = nn.Linear(self.n_features, config.projection) if config.projection else None
        self.embedding_size = config.projection or self.n_features
        # Pixels are on the scale 0..255, so mean and std are too.
        self.register_buffer("mean", 255 * torch.tensor(config.mean).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(config.std).view(1, 3, 1, 1))
        if config.standardised:
            self.register_buffer("feature_mean", torch.zeros(self.n_features))
            self.register_buffer("feature_std", torch.ones(self.n_features))
        self.backbone_frozen = False

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze or unfreeze the backbone. The batch norms of a frozen backbone keep their statistics."""
        self.backbone_frozen = frozen
        if self.backbone is not None:
            self.backbone.requires_grad_(not frozen)
        self.train(self.training)

    def train(self, mode: bool = True):
        super().train(mode)
        if self.backbone_frozen and self.backbone is not None:
            self.backbone.eval()
        return self

    def heads(self, drop_rate: float = 0.0) -> "Network":
        """A new network without a backbone, for this one's features. Its classifier starts at logit 0.

        Random first weights in a thousand directions are as large as what a thousand labels teach, and training does not remove them.
        """
        network = Network(None, self.config, drop_rate, self.n_features)
        last = network.head if self.config.hidden is None else network.head[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return network

    def standardise(self, features: torch.Tensor) -> None:
        """Take mean and standard deviation of the features `[N, D]` of training patches; constant features are left as they are."""
        # In blocks, since many features fill much of the memory, and torch would copy all of them as float64.
        blocks = features.split(4096)
        mean = sum(block.double().sum(0) for block in blocks) / len(features)
        squares = sum((block.double() - mean).square().sum(0) for block in blocks)
        std = (squares / len(features)).sqrt()
        self.feature_mean.copy_(mean)
        self.feature_std.copy_(torch.where(std > 1e-6, std, 1.0))

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

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the backbone says of patches uint8 `[B, H, W, 3]`: float `[B, D]`."""
        images = self.prepare(pixels)
        if self.config.layers == "last":
            return self.pool(self.backbone(images))
        last, maps = self.stage_maps(images)
        return torch.cat([*(each.mean((2, 3)) for each in maps), self.backbone.forward_head(last)], 1)

    def stage_maps(self, images: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The last feature map, and those of the stages that are pooled beside it (`config.layers` "stages"), each `[B, C, h, w]`."""
        last, maps = self.backbone.forward_intermediates(images, output_fmt="NCHW")
        return last, maps[: len(stages(self.backbone))]

    def pool(self, output: torch.Tensor) -> torch.Tensor:
        """Features `[B, D]` of the backbone's output, which is tokens `[B, T, D]` where the config has a rule for them."""
        return output if self.config.tokens is None else pool_tokens(output, self.config.tokens, self.backbone.num_prefix_tokens)

    def forward(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logit` `[B]` of class 1 and `embedding` `[B, D]` of unit length, which is the projection, or else the pooled features."""
        features = patches if patches.ndim == 2 else self.features(patches)
        if not self.config.standardised:
            return self._heads(features)
        # In float32, so that heads give the same numbers on features from a cache.
        with torch.autocast(features.device.type, enabled=False):
            return self._heads(self.scaled(features))

    def logit(self, features: torch.Tensor) -> torch.Tensor:
        """`forward(features)["logit"]` alone, float `[B]`, for features `[B, D]` of a frozen backbone. A linear head takes them unscaled, in one product.

        Of `side_by_side` networks, float `[B, P]`.
        """
        if not self.linear or self.training:
            return self(features.float())["logit"]
        with torch.autocast(features.device.type, enabled=False):
            weight = self.head.weight / self.feature_std
            return functional.linear(features.float(), weight, self.head.bias - weight @ self.feature_mean).squeeze(1)

    @property
    def outputs(self) -> int:
        """Logits of a patch: 1, or P of `side_by_side` networks."""
        return self.head.out_features if isinstance(self.head, nn.Linear) else 1

    @property
    def linear(self) -> bool:
        """Whether the logit is a linear function of the features."""
        return self.config.standardised and isinstance(self.head, nn.Linear)

    def scaled(self, features: torch.Tensor) -> torch.Tensor:
        """Features `[B, D]` as the heads take them: standardised where the config says so."""
        return (features.float() - self.feature_mean) / self.feature_std if self.config.standardised else features

    def _heads(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        embedding = self.projection(features) if self.projection is not None else features
        return {
            "embedding": functional.normalize(embedding.float(), dim=1),
            "logit": self.head(self.dropout(features)).squeeze(1).float(),
        }


def side_by_side(networks: Sequence[Network]) -> Network:
    """One network for the features of P linear ones, each with its own scale: a single product gives the logits of all."""
    together = networks[0].heads()
    together.head = nn.Linear(together.n_features, len(networks))
    weights = [network.head.weight[0] / network.feature_std for network in networks]
    with torch.no_grad():
        together.head.weight.copy_(torch.stack(weights))
        biases = [network.head.bias[0] - weight @ network.feature_mean for network, weight in zip(networks, weights, strict=True)]
        together.head.bias.copy_(torch.stack(biases))
    return together.to(networks[0].head.weight.device)


def _classifier(features: int, hidden: int | None, drop_rate: float) -> nn.Module:
    if hidden is None:
        return nn.Linear(features, 1)
    return nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Dropout(drop_rate), nn.Linear(hidden, 1))


def feature_count(backbone: nn.Module, config: NetworkConfig) -> int:
    """Number of features that a backbone gives with the layers and tokens of a config."""
    last = getattr(backbone, "head_hidden_size", backbone.num_features)
    if config.layers == "last":
        return last * token_width(config.tokens)
    return last + sum(stage["num_chs"] for stage in stages(backbone))


def stages(backbone: nn.Module) -> list[dict[str, Any]]:
    """timm's descriptions of the stages whose pooled outputs tell more than the last features: those of another width."""
    last = getattr(backbone, "head_hidden_size", backbone.num_features)
    described = getattr(backbone.feature_info, "info", backbone.feature_info)
    return [each for number, each in enumerate(described) if number < len(described) - 1 or each["num_chs"] != last]


def shrinks(backbone: nn.Module) -> bool:
    """Whether later stages see the patch at a lower resolution, as in CNNs; plain vision transformers do not."""
    described = getattr(backbone.feature_info, "info", backbone.feature_info)
    return hasattr(backbone, "forward_intermediates") and len({each["reduction"] for each in described}) > 1


def build_network(
    name: str,
    pretrained: bool,
    size_px: int,
    image_size: int | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    projection: int | None = None,
    hidden: int | None = None,
    layers: str = "last",
    standardised: bool = False,
) -> Network:
    """A new network for patches of `size_px`, with an embedding head of `projection` dimensions where given. `layers` is last, stages or auto.

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
    backbone = create_backbone(resolved, pretrained, arguments)
    if resolved.tokens is None and arguments.get("global_pool") == "":
        raise UserError(
            f"model.name: {name} was saved without pooling; copy it to a folder, set global_pool in its config.json (token, or avg), and name local-dir:PATH"
        )
    if layers == "stages" and (resolved.tokens is not None or not hasattr(backbone, "forward_intermediates")):
        raise UserError(f"features.layers: {name} has no stages to pool; set features.layers=last")
    if layers == "auto":
        layers = "stages" if resolved.tokens is None and shrinks(backbone) else "last"
    config = NetworkConfig(
        resolved.architecture,
        arguments,
        image_size,
        tuple(mean),
        tuple(std),
        name,
        projection,
        interpolation,
        resolved.tokens,
        layers,
        standardised,
        hidden,
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
