"""DINOv2 checkpoints of the package transformers (`"model_type": "dinov2"`) as timm backbones, without that package."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from pcam_ssl.errors import UserError

RENAMED = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    (".attention.output.dense.", ".attn.proj."),
    (".layer_scale1.lambda1", ".ls1.gamma"),
    (".layer_scale2.lambda1", ".ls2.gamma"),
    (".mlp.weights_in.", ".mlp.fc1."),
    (".mlp.weights_out.", ".mlp.fc2."),
    ("layernorm.", "norm."),
)
QUERY, KEY, VALUE = (f".attention.attention.{part}." for part in ("query", "key", "value"))

RESAMPLING = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers for how the image processor of transformers resizes; 3 is its default for DINOv2."""


def describe(name: str) -> tuple[str, dict[str, Any], dict[str, Any]] | None:
    """timm's architecture, arguments and input configuration for the checkpoint at `hf-hub:OWNER/NAME` or `local-dir:PATH`.

    None where its config.json is not of transformers. Raises UserError for another model of transformers, and what the hub raises.
    """
    config = _json(name, "config.json")
    if "model_type" not in config or "architecture" in config:
        return None
    if config["model_type"] != "dinov2":
        raise UserError(
            f"model.name: {name} is a {config['model_type']} of transformers, and of those only dinov2 is read; take a checkpoint of timm"
        )
    processor = _processor(name)
    size = processor.get("crop_size", {}).get("height", config.get("image_size", 224))
    defaults = {
        "input_size": (3, size, size),
        "fixed_input_size": True,
        "interpolation": RESAMPLING.get(processor.get("resample", 3), "bicubic"),
        **{key: processor[f"image_{key}"] for key in ("mean", "std") if f"image_{key}" in processor},
    }
    return *timm_architecture(config), defaults


def load_backbone(source: str, build: Callable[[], nn.Module]) -> nn.Module:
    """The backbone that `build` makes, with the weights of the checkpoint at `source`, an address as in `describe`.

    Raises what the hub raises, or RuntimeError where the weights do not fit.
    """
    tensors = load_file(_fetched(source, "model.safetensors"))
    # Random weights for a billion parameters would take half a minute, to be replaced at once.
    with torch.device("meta"):
        backbone = build()
    tensors = {name: value.float() for name, value in timm_tensors(tensors, backbone.patch_embed.grid_size).items()}
    backbone.load_state_dict(tensors, assign=True)
    return backbone


def timm_architecture(config: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """timm's architecture and arguments for a config.json of a transformers DINOv2 model. Raises KeyError where it lacks a size."""
    width, ratio = config["hidden_size"], config.get("mlp_ratio", 4)
    arguments = {
        "patch_size": config["patch_size"],
        "embed_dim": width,
        "depth": config["num_hidden_layers"],
        "num_heads": config["num_attention_heads"],
        "qkv_bias": config.get("qkv_bias", True),
        "init_values": config.get("layerscale_value", 1.0),
    }
    if not config.get("use_swiglu_ffn", False):
        return "vit_small_patch14_dinov2", arguments | {"mlp_ratio": ratio}
    # transformers keeps two thirds of the hidden units of a SwiGLU, rounded up to a multiple of 8; timm counts both of its halves.
    hidden = (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8
    return "vit_giant_patch14_dinov2", arguments | {"mlp_ratio": (2 * hidden + 0.5) / width}


def timm_tensors(tensors: dict[str, torch.Tensor], grid: tuple[int, int]) -> dict[str, torch.Tensor]:
    """Weights under timm's names, with position embeddings for a grid of `grid` patch tokens.

    Positions are resampled as transformers does it, bicubic and not antialiased.
    """
    renamed = {}
    for name, value in tensors.items():
        if name == "embeddings.mask_token" or KEY in name or VALUE in name:
            continue
        if QUERY in name:
            parts = [tensors[name.replace(QUERY, part)] for part in (QUERY, KEY, VALUE)]
            name, value = name.replace(QUERY, ".attn.qkv."), torch.cat(parts)
        for old, new in RENAMED:
            name = name.replace(old, new)
        renamed[name] = value
    renamed["pos_embed"] = _resampled(renamed["pos_embed"], grid)
    return renamed


def _resampled(positions: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Position embeddings `[1, 1 + N, D]`, the class token's first, for another grid."""
    side = round((positions.shape[1] - 1) ** 0.5)
    if (side, side) == tuple(grid):
        return positions
    square = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side)).float()  # [1, D, side, side]
    resized = functional.interpolate(square, tuple(grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], resized.flatten(2).transpose(1, 2).to(positions.dtype)], dim=1)


def _processor(name: str) -> dict[str, Any]:
    """The preprocessor_config.json of a checkpoint; empty where it has none."""
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return _json(name, "preprocessor_config.json")
    except (FileNotFoundError, EntryNotFoundError):
        return {}


def _json(name: str, file: str) -> dict[str, Any]:
    return json.loads(_fetched(name, file).read_text(encoding="utf-8"))


def _fetched(name: str, file: str) -> Path:
    """The path of a file of a checkpoint: in its folder, or in the cache of the hub, into which it is downloaded."""
    from huggingface_hub import hf_hub_download

    kind, _, address = name.partition(":")
    if kind == "local-dir":
        return Path(address) / file
    repository, _, revision = address.partition("@")
    return Path(hf_hub_download(repository, file, revision=revision or None))
