from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import resolve_data_config
from timm.layers import DropPath
from torch.nn import functional

from pcam_ssl.errors import UserError
from pcam_ssl.models.backbone import resolve_backbone
from pcam_ssl.models.network import build_network, rebuild_network


def patches(n: int = 4, size_px: int = 32) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return build_network("test_resnet", False, 32)


def test_one_logit_and_one_embedding_a_patch(network):
    out = network(patches())
    assert out["logit"].shape == (4,)
    assert out["embedding"].shape == (4, network.embedding_size)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_other_families_of_backbones_work(name):
    out = build_network(name, False, 32)(patches(2))
    assert out["logit"].shape == (2,)
    assert torch.isfinite(out["logit"]).all()


def test_pixels_are_normalised_once_on_the_0_to_255_scale(network):
    network.mean.fill_(100.0)
    network.std.fill_(50.0)
    assert torch.equal(network.prepare(torch.full((1, 32, 32, 3), 200, dtype=torch.uint8)), torch.full((1, 3, 32, 32), 2.0))


def test_the_normalisation_of_the_backbone_is_used(network):
    assert network.mean.flatten().tolist() == [127.5] * 3  # test_resnet: mean 0.5 of 255


def resized(network, patch: torch.Tensor) -> np.ndarray:
    """What `prepare` makes of one patch, back on the 0..255 scale, float `[S, S, 3]`."""
    return (network.prepare(patch[None]) * network.std + network.mean)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [32, 64, 160], ids=lambda size: f"to {size} px")
@pytest.mark.parametrize(("name", "filter"), [("test_resnet", Image.BILINEAR), ("test_vit", Image.BICUBIC)])
def test_patches_are_resized_as_pillow_does_by_the_backbones_own_interpolation(name, filter, size):
    network = build_network(name, False, 96, image_size=size)
    patch = 90 + patches(1, 96)[0] // 3  # Pillow clips after each axis, so nothing may overshoot
    expected = np.asarray(Image.fromarray(patch.numpy()).resize((size, size), filter), np.float32)
    assert np.abs(resized(network, patch) - expected).max() < 1.5  # and it rounds


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_a_fine_checkerboard_becomes_grey_when_it_shrinks(name):
    """At a third of the size each new pixel lies on one old one: without antialiasing it would be black or white."""
    board = torch.from_numpy(255 * (np.indices((96, 96)).sum(0) % 2).astype(np.uint8))[..., None].expand(-1, -1, 3)
    assert np.abs(resized(build_network(name, False, 96, image_size=32), board)[4:-4, 4:-4] - 127.5).max() < 30


def test_an_edge_does_not_overshoot():
    patch = torch.zeros(32, 32, 3, dtype=torch.uint8)
    patch[:, 16:] = 255
    shown = resized(build_network("test_vit", False, 32, image_size=64), patch)
    assert shown.min() >= -1e-3 and shown.max() <= 255 + 1e-3


def test_interpolation_is_saved_and_bilinear_where_an_artefact_lacks_it():
    config = build_network("test_vit", False, 32, image_size=64).config.to_dict()
    assert config["interpolation"] == "bicubic"
    assert rebuild_network(config).config.interpolation == "bicubic"
    del config["interpolation"]
    assert rebuild_network(config).config.interpolation == "bilinear"


def test_without_stated_interpolation_the_default_of_timm_is_used(monkeypatch):
    silent = replace(resolve_backbone("test_resnet", False), defaults={})
    monkeypatch.setattr("pcam_ssl.models.network.resolve_backbone", lambda *_: silent)
    assert build_network("test_resnet", False, 32).config.interpolation == resolve_data_config({"img_size": 32})["interpolation"]


def test_a_transformer_has_its_own_size_unless_one_is_set():
    assert build_network("test_vit", False, 32).config.image_size == 160
    assert build_network("test_vit", False, 32, image_size=64).config.image_size == 64


def test_a_frozen_backbone_keeps_weights_and_statistics(network):
    network.freeze_backbone(True)
    network.train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(patches())["logit"].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert network.head.weight.grad is not None


def test_an_unfrozen_backbone_updates_weights_and_statistics(network):
    network.freeze_backbone(True)
    network.freeze_backbone(False)
    network.train()
    before = network.backbone.bn1.running_mean.clone()
    network(patches())["logit"].sum().backward()
    assert not torch.equal(network.backbone.bn1.running_mean, before)
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


def test_dropout_zeroes_its_share_of_the_features_and_scales_the_rest():
    network = build_network("test_resnet", False, 32, drop_rate=0.25).train()
    seen = []
    network.backbone.register_forward_hook(lambda module, inputs, output: seen.append(output))
    network.head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    embedding = network(patches(64))["embedding"]
    features, kept = seen
    dropped = (kept == 0) & (features != 0)
    assert 0.2 < dropped.sum() / (features != 0).sum() < 0.3
    assert torch.allclose(kept[~dropped], features[~dropped] / 0.75)
    assert torch.equal(embedding, functional.normalize(features, dim=1))  # metric learning sees the features whole


def test_stochastic_depth_reaches_the_backbone():
    rates = [
        module.drop_prob
        for module in build_network("test_convnext", False, 32, drop_path_rate=0.4).modules()
        if isinstance(module, DropPath)
    ]
    assert max(rates) == pytest.approx(0.4)


def test_dropout_is_off_when_a_network_predicts():
    network = build_network("test_resnet", False, 32, drop_rate=0.5).eval()
    assert torch.equal(network(patches())["logit"], network(patches())["logit"])


def test_a_config_builds_the_same_network_again(network):
    again = rebuild_network(network.config.to_dict())
    again.load_state_dict(network.state_dict())
    assert torch.equal(again.eval()(patches())["logit"], network.eval()(patches())["logit"])


def test_building_uses_no_network_and_leaves_eval_mode(network):
    assert not network.training


@pytest.mark.parametrize("size", [48, 50])
def test_a_size_the_backbone_cannot_take_is_one_line(size):
    if size == 48:
        build_network("test_vit", False, 32, image_size=size)
        return
    with pytest.raises(UserError) as caught:
        build_network("test_vit", False, 32, image_size=size)
    assert str(caught.value).startswith("model.image_size: test_vit cannot take 50 px (")
    assert "\n" not in str(caught.value)


def test_a_backbone_that_fails_without_a_message_is_one_line():
    with pytest.raises(UserError, match=r"model.image_size: halonet26t cannot take 96 px \(AssertionError\); set another size"):
        build_network("halonet26t", False, 96)
