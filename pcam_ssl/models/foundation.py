"""Pathology foundation models by short names: where their weights are, how they are built, and on what terms one gets them.

Recipes, `recipes list`, `doctor` and docs/foundation-models.md read this table. Numbers of parameters and dimensions are those of the
architecture built here. PCam scores are those of kaiko's eva leaderboard (github.com/kaiko-ai/eva, tools/data/leaderboards/pathology.csv):
balanced accuracy on PCam's test split, backbone frozen, linear head, mean of 5 runs.
"""

from dataclasses import dataclass
from typing import Any

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@dataclass(frozen=True)
class FoundationModel:
    """A published network: `architecture` and `arguments` are timm's, `tokens` is the rule of `models.network.pool_tokens`."""

    title: str
    address: str
    architecture: str
    arguments: dict[str, Any]
    tokens: str
    dimension: int
    parameters: int
    licence: str
    gated: bool
    trained_at: str
    """Magnification and µm per px of its training patches."""
    paper: str
    pcam: float | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    size_px: int = 224
    transformers: bool = False
    """Whether the weights are named as in the package transformers, so that they are converted (`models.dinov2`)."""

    @property
    def page(self) -> str:
        """The page of the hub where terms are read and access is asked for."""
        return f"https://huggingface.co/{self.address.removeprefix('hf-hub:')}"

    @property
    def cached(self) -> bool:
        """Whether its weights are in the hub's cache of this machine."""
        from huggingface_hub import try_to_load_from_cache

        repository = self.address.removeprefix("hf-hub:")
        return any(isinstance(try_to_load_from_cache(repository, file), str) for file in WEIGHT_FILES)

    def gigabytes(self, bytes_each: int = 4) -> float:
        """Size of the weights in GB, with 4 bytes each (fp32), or 2 (fp16, bf16)."""
        return self.parameters * bytes_each / 1e9

    def terms(self) -> str:
        """Size, gating and licence in a few words."""
        return f"{self.gigabytes():.1f} GB, {'gated' if self.gated else 'not gated'}, {self.licence}"


FOUNDATION_MODELS = {
    "uni2": FoundationModel(
        title="UNI2-h",
        address="hf-hub:MahmoodLab/UNI2-h",
        architecture="vit_giant_patch14_224",
        arguments={
            "patch_size": 14,
            "depth": 24,
            "num_heads": 24,
            "init_values": 1e-5,
            "embed_dim": 1536,
            "mlp_ratio": 2.66667 * 2,
            "no_embed_class": True,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "silu",
            "reg_tokens": 8,
            "dynamic_img_size": True,
        },
        tokens="cls",
        dimension=1536,
        parameters=681_394_176,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_at="20x (0.5 µm/px)",
        paper="Chen et al. 2024, doi:10.1038/s41591-024-02857-3",
        pcam=0.950,
        **IMAGENET,
        interpolation="bilinear",
    ),
    "virchow2": FoundationModel(
        title="Virchow2",
        address="hf-hub:paige-ai/Virchow2",
        architecture="vit_huge_patch14_224",
        arguments={
            "init_values": 1e-5,
            "reg_tokens": 4,
            "mlp_ratio": 5.3375,
            "mlp_layer": "SwiGLUPacked",
            "act_layer": "silu",
            "dynamic_img_size": True,
        },
        tokens="cls+mean",
        dimension=2560,
        parameters=631_239_424,
        licence="CC-BY-NC-ND-4.0",
        gated=True,
        trained_at="5x to 40x (2.0 to 0.25 µm/px)",
        paper="Zimmermann et al. 2024, arXiv:2408.00738",
        pcam=0.938,
        **IMAGENET,
        interpolation="bicubic",
    ),
    "h-optimus-0": FoundationModel(
        title="H-optimus-0",
        address="hf-hub:bioptimus/H-optimus-0",
        architecture="vit_giant_patch14_reg4_dinov2",
        arguments={"init_values": 1e-5, "dynamic_img_size": False},
        tokens="cls",
        dimension=1536,
        parameters=1_134_774_272,
        licence="Apache-2.0",
        gated=True,
        trained_at="20x (0.5 µm/px)",
        paper="Saillard et al. 2024, github.com/bioptimus/releases",
        pcam=0.943,
        mean=(0.707223, 0.578729, 0.703617),
        std=(0.211883, 0.230117, 0.177517),
        # Assumed: its card resizes nothing, and bicubic is timm's default.
        interpolation="bicubic",
    ),
    "phikon-v2": FoundationModel(
        title="Phikon-v2",
        address="hf-hub:owkin/phikon-v2",
        architecture="vit_large_patch14_dinov2",
        arguments={"patch_size": 16, "init_values": 1.0},
        tokens="cls",
        dimension=1024,
        parameters=303_350_784,
        licence="Owkin non-commercial",
        gated=False,
        trained_at="20x (0.5 µm/px)",
        paper="Filiot et al. 2024, arXiv:2409.09173",
        pcam=0.894,
        **IMAGENET,
        # Assumed: the default of transformers for DINOv2.
        interpolation="bicubic",
        transformers=True,
    ),
    "midnight": FoundationModel(
        title="Midnight-12k",
        address="hf-hub:kaiko-ai/midnight",
        architecture="vit_giant_patch14_dinov2",
        arguments={"init_values": 1.0},
        tokens="cls+mean",
        dimension=3072,
        parameters=1_134_769_664,
        licence="MIT",
        gated=False,
        trained_at="5x to 40x (2.0 to 0.25 µm/px)",
        paper="Karasikov et al. 2025, arXiv:2504.05186",
        pcam=0.929,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        interpolation="bilinear",
        transformers=True,
    ),
}


def foundation_model(name: str) -> FoundationModel | None:
    """The model of that short name or hub address; None where the table has none."""
    addressed = (model for model in FOUNDATION_MODELS.values() if model.address == name)
    return FOUNDATION_MODELS.get(name) or next(addressed, None)


def resizing(name: str, size_px: int, image_size: int | None) -> str | None:
    """A sentence on how patches of `size_px` reach a foundation model; None for other backbones."""
    model = foundation_model(name)
    if model is None:
        return None
    size = image_size or model.size_px
    how = f"are resized to {size} px ({model.interpolation})" if size != size_px else "are taken as they are"
    return f"{name}: patches of {size_px} px {how}; it was trained on {model.size_px} px at {model.trained_at}"
