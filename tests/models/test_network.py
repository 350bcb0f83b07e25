import numpy as np
import pytest
import torch
from torch.nn import functional

from pcam_ssl.errors import UserError
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


def test_a_backbones_own_normalisation_is_taken(network):
    assert network.mean.flatten().tolist() == [127.5] * 3  # test_resnet: mean 0.5 of 255


def test_pixels_are_resized_on_the_way_in():
    network = build_network("test_resnet", False, 32, image_size=64)
    images = patches(1).permute(0, 3, 1, 2).float()
    expected = functional.interpolate(images, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    assert torch.allclose(network.prepare(patches(1)), (expected - network.mean) / network.std)


def test_a_transformer_insists_on_its_size_unless_told():
    assert build_network("test_vit", False, 32).config.image_size == 160
    assert build_network("test_vit", False, 32, image_size=64).config.image_size == 64


def test_frozen_the_backbone_neither_learns_nor_counts(network):
    network.freeze_backbone(True)
    network.train()
    before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
    network(patches())["logit"].sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in network.backbone.state_dict().items())
    assert all(parameter.grad is None for parameter in network.backbone.parameters())
    assert network.head.weight.grad is not None


def test_freed_the_backbone_learns_and_counts(network):
    network.freeze_backbone(True)
    network.freeze_backbone(False)
    network.train()
    before = network.backbone.bn1.running_mean.clone()
    network(patches())["logit"].sum().backward()
    assert not torch.equal(network.backbone.bn1.running_mean, before)
    assert all(parameter.grad is not None for parameter in network.backbone.parameters())


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


def test_a_backbone_that_fails_without_a_word_is_one_line_too():
    with pytest.raises(UserError, match=r"model.image_size: halonet26t cannot take 96 px \(AssertionError\); set another size"):
        build_network("halonet26t", False, 96)
