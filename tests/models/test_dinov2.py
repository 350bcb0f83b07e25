"""Checkpoints of the package transformers, as Phikon-v2 and Midnight are published, against that package itself."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.models.artefact import load_calibrated
from pcam_ssl.models.backbone import build_backbone, create_backbone, resolve_backbone
from pcam_ssl.models.dinov2 import timm_architecture
from pcam_ssl.models.foundation import FOUNDATION_MODELS
from pcam_ssl.models.network import build_network
from pcam_ssl.tables import read_table

transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra: explore)")


@pytest.fixture(params=[False, True], ids=["mlp", "swiglu"])
def checkpoint(request, tmp_path):
    """A folder as `save_pretrained` writes it, and the model in it with random weights."""
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=14, use_swiglu_ffn=request.param
    )
    torch.manual_seed(0)
    model = transformers.Dinov2Model(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path)
    processor = {
        "crop_size": {"height": 56, "width": 56},
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
        "resample": 2,
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    return f"local-dir:{tmp_path}", model


@pytest.mark.parametrize("size", [56, 112], ids=lambda size: f"{size} px")
def test_tokens_are_those_of_transformers(checkpoint, size):
    name, model = checkpoint
    resolved = resolve_backbone(name, True)
    backbone = create_backbone(resolved, True, {**resolved.arguments, "img_size": size, "global_pool": ""}).eval()
    images = torch.rand(2, 3, size, size)
    with torch.inference_mode():
        assert torch.allclose(backbone(images), model(images).last_hidden_state, atol=1e-4)


def test_size_and_normalisation_are_those_of_the_processor(checkpoint):
    config = build_network(checkpoint[0], True, 32).config
    assert (config.image_size, config.mean, config.std) == (56, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (config.interpolation, config.tokens) == ("bilinear", "cls")


def test_without_a_processor_the_size_is_the_models(checkpoint, tmp_path):
    (tmp_path / "preprocessor_config.json").unlink()
    config = build_network(checkpoint[0], True, 32).config
    assert (config.image_size, config.interpolation) == (56, "bicubic")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("phikon-v2", {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 16}),
        (
            "midnight",
            {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "patch_size": 14, "use_swiglu_ffn": True},
        ),
    ],
)
def test_published_sizes_make_the_network_of_the_table(name, config):
    architecture, arguments = timm_architecture(config)
    with torch.device("meta"):
        backbone = build_backbone(architecture, {**arguments, "img_size": 224})
    model = FOUNDATION_MODELS[name]
    with torch.device("meta"):
        expected = build_backbone(model.architecture, {**model.arguments, "img_size": 224})
    shapes = {key: value.shape for key, value in backbone.state_dict().items()}
    assert shapes == {key: value.shape for key, value in expected.state_dict().items()}


def test_a_run_by_short_name_needs_only_its_artefact(checkpoint, train, slides, tmp_path, monkeypatch):
    """One epoch on the frozen backbone, in which Phikon-v2 has an MLP and Midnight a SwiGLU."""
    address, model = checkpoint
    name = "midnight" if model.config.use_swiglu_ffn else "phikon-v2"
    _, arguments = timm_architecture(model.config.to_dict())
    small = replace(FOUNDATION_MODELS[name], address=address, arguments=arguments, size_px=56)
    monkeypatch.setitem(FOUNDATION_MODELS, name, small)
    run = train(
        tmp_path / "run",
        f"model.name={name}",
        "model.pretrained=true",
        "model.freeze_backbone=true",
        "features.cache=false",
        "train.epochs=1",
        only=[0],
    )
    monkeypatch.undo()
    (tmp_path / "model.safetensors").unlink()
    trained = load_calibrated(run.fold(0), "cpu")
    assert torch.equal(trained.network.backbone.cls_token, model.embeddings.cls_token)
    scored, dataset = read_table(run.fold(0) / "oof.parquet")[0], open_dataset(slides)
    pixels = np.array(dataset.pixels[dataset.patches.set_index("id").row[scored.id].to_numpy()])
    with torch.inference_mode():
        tokens = model(trained.network.prepare(torch.from_numpy(pixels))).last_hidden_state
        assert scored.logit.to_numpy() == pytest.approx(trained(pixels).numpy(), abs=1e-5)
        expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=1) if name == "midnight" else tokens[:, 0]
        expected = (expected - trained.network.feature_mean) / trained.network.feature_std
        assert torch.allclose(trained.embedding(pixels), functional.normalize(expected, dim=1), atol=1e-4)


def test_another_model_of_transformers_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "swin"}))
    with pytest.raises(UserError, match=r"is a swin of transformers, and of those only dinov2 is read; take a checkpoint of timm"):
        resolve_backbone(f"local-dir:{tmp_path}", True)


def test_weights_that_do_not_fit_are_refused(checkpoint, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"weights of local-dir:.* cannot be reached"):
        build_network(checkpoint[0], True, 32)
