"""The table of foundation models, and runs of small networks of the same families with random weights."""

import json
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.explain.gradcam import GradCam
from pcam_ssl.models.artefact import load_calibrated
from pcam_ssl.models.backbone import build_backbone, resolve_backbone
from pcam_ssl.models.foundation import FOUNDATION_MODELS, foundation_model, resizing
from pcam_ssl.models.network import build_network, pool_tokens, token_width
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.tables import read_table

SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2}
"""A head of 12 dimensions, as small as any."""


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_timm_builds_it_with_the_parameters_and_dimension_of_the_table(name):
    model = FOUNDATION_MODELS[name]
    with torch.device("meta"):
        backbone = build_backbone(model.architecture, {**model.arguments, "img_size": model.size_px, "global_pool": ""})
        tokens = backbone(torch.zeros(1, 3, model.size_px, model.size_px))
    assert sum(parameter.numel() for parameter in backbone.parameters()) == model.parameters
    assert tokens.shape[2] * token_width(model.tokens) == model.dimension


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_no_backbone_of_timm_has_its_name(name):
    assert not timm.is_model(name)


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_its_recipe_freezes_it(name):
    recipe = load_recipe(name)
    assert (recipe.model.name, recipe.model.freeze_backbone, recipe.model.pretrained) == (name, True, True)


def test_the_hub_address_finds_it_too():
    assert foundation_model("hf-hub:paige-ai/Virchow2") is foundation_model("virchow2")
    assert foundation_model("resnet18") is None


def test_without_pretrained_weights_no_hub_is_asked():
    resolved = resolve_backbone("uni2", False)
    assert (resolved.architecture, resolved.tokens, resolved.source) == ("vit_giant_patch14_224", "cls", "hf-hub:MahmoodLab/UNI2-h")


def test_a_misspelt_name_names_it():
    with pytest.raises(UserError, match=r"timm has no backbone virchov2\. Did you mean virchow2"):
        resolve_backbone("virchov2", True)


def test_the_resizing_is_said_in_words():
    assert resizing("virchow2", 96, None) == (
        "virchow2: patches of 96 px are resized to 224 px (bicubic); it was trained on 224 px at 5x to 40x (2.0 to 0.25 µm/px)"
    )
    assert "are taken as they are" in resizing("uni2", 224, None)
    assert "to 112 px" in resizing("uni2", 96, 112)
    assert resizing("resnet18", 96, 224) is None


@pytest.fixture(params=["uni2", "virchow2", "h-optimus-0"])
def small(request, monkeypatch, tmp_path):
    """The name of a foundation model, whose address is now a folder with a small network of the same family."""
    name = request.param
    model = FOUNDATION_MODELS[name]
    arguments = {**model.arguments, **SMALL, "patch_size": 14}
    torch.manual_seed(1)
    backbone = build_backbone(model.architecture, {**arguments, "img_size": 56, "global_pool": ""})
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = tmp_path / "model"
    folder.mkdir()
    held = {key: value for key, value in arguments.items() if key != "mlp_layer"} | {"num_classes": 0, "global_pool": ""}
    config = {
        "architecture": model.architecture,
        "model_args": held,
        "pretrained_cfg": {"input_size": [3, 56, 56], "num_classes": 0},
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(backbone.state_dict(), folder / "model.safetensors")
    changed = replace(model, address=f"local-dir:{folder}", arguments=arguments, size_px=56)
    monkeypatch.setitem(FOUNDATION_MODELS, name, changed)
    return name, backbone.eval()


def test_the_embedding_is_made_by_the_rule_of_its_weights(small):
    name, backbone = small
    network = build_network(name, True, 32)
    patch = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    with torch.inference_mode():
        features = pool_tokens(backbone(network.prepare(patch)), FOUNDATION_MODELS[name].tokens, backbone.num_prefix_tokens)
        expected = torch.nn.functional.normalize(features, dim=1)
        assert torch.allclose(network(patch)["embedding"], expected, atol=1e-6)
    assert network.embedding_size == features.shape[1]


def test_a_run_needs_only_its_artefact(small, train, slides, tmp_path, monkeypatch, capsys):
    """One epoch on the frozen backbone; the artefact gives the run's own logits after the checkpoint is gone."""
    name, backbone = small
    run = train(
        tmp_path / "run",
        f"model.name={name}",
        "model.pretrained=true",
        "model.freeze_backbone=true",
        "features.cache=false",  # in float32: features of random weights hardly differ between patches, less than float16 tells apart
        "train.epochs=1",
        only=[0],
    )
    assert f"{name}: patches of 32 px are resized to 56 px" in capsys.readouterr().err
    monkeypatch.undo()
    (tmp_path / "model" / "model.safetensors").unlink()
    trained = load_calibrated(run.fold(0), "cpu")
    kept = trained.network.backbone.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in backbone.state_dict().items())
    dataset = open_dataset(slides)
    scored = read_table(run.fold(0) / "oof.parquet")[0]
    rows = dataset.patches.set_index("id").row[scored.id].to_numpy()
    with torch.inference_mode():
        logits = trained(np.array(dataset.pixels[rows])).numpy()
    assert scored.logit.to_numpy() == pytest.approx(logits, abs=1e-5)


def test_grad_cam_explains_the_logit_of_a_rule(small):
    network = build_network(small[0], True, 32)
    patch = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    logits, maps = GradCam(network)(patch)
    assert torch.allclose(logits, network(patch)["logit"], atol=1e-5)
    assert maps.shape == (2, 4, 4) and (maps != 0).any()
