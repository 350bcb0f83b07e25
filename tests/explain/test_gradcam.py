"""Grad-CAM of tiny networks, against the definition."""

import numpy as np
import pytest
import torch
from timm.models.vision_transformer_sam import VisionTransformerSAM

from pcam_ssl.errors import UserError
from pcam_ssl.explain.gradcam import GradCam, explain_views, turn_back, view_logits
from pcam_ssl.models.inference import dihedral
from pcam_ssl.models.network import Network, build_network

SIZE_PX = 64


def network_of(name: str, image_size: int | None = None):
    torch.manual_seed(3)
    return build_network(name, False, SIZE_PX, image_size)


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


# A convolutional map, one with channels last (Swin), tokens behind a class token, tokens behind four registers.
@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("test_resnet", 2),
        ("test_convnext", 2),
        ("test_vit", 10),
        ("swin_tiny_patch4_window7_224", 7),
        ("vit_small_patch14_reg4_dinov2", 5),
    ],
)
def test_every_kind_of_backbone_gives_its_own_logit_and_a_map(pixels, name, grid):
    network = network_of(name, 70 if "dinov2" in name else None)
    logits, maps = GradCam(network)(pixels)
    with torch.no_grad():
        assert torch.allclose(logits, network(pixels)["logit"], atol=1e-5)
    assert maps.shape == (2, grid, grid) and maps.abs().max() > 0


def test_a_convolutional_map_is_mean_gradient_times_activation(pixels):
    network = network_of("test_resnet")
    _, maps = GradCam(network)(pixels)
    features = network.backbone.forward_features(network.prepare(pixels)).detach().requires_grad_()
    logits = network.head(network.backbone.forward_head(features)).squeeze(1)
    (gradient,) = torch.autograd.grad(logits.sum(), features)
    assert torch.allclose(maps, (gradient.mean((2, 3), keepdim=True) * features).sum(1), atol=1e-7)


class Remembering(GradCam):
    """Keeps what maps are laid over: `laid`, `[D, h, w]` of the first patch of each call."""

    def __init__(self, network):
        super().__init__(network)
        self.laid = []

    def _grid(self, features):
        self.laid.append(features.detach()[0])
        return super()._grid(features)


def test_a_transformers_tokens_are_laid_where_they_came_from():
    network = network_of("test_vit", SIZE_PX)
    # One block and no positions: a token differs from the others only where its pixels do.
    network.backbone.blocks = network.backbone.blocks[:1]
    network.backbone.pos_embed.data.zero_()
    pixels = torch.full((1, SIZE_PX, SIZE_PX, 3), 128, dtype=torch.uint8)
    pixels[:, :16, 48:] = 255  # the token of row 0, column 3
    cam = Remembering(network)
    cam(pixels)
    unlike = (cam.laid[0] - cam.laid[0][:, 3:, :1]).abs().sum(0) > 1e-3
    assert unlike.nonzero().tolist() == [[0, 3]]


def test_blocks_that_keep_the_grid_are_laid_by_their_rows_and_columns(pixels):
    torch.manual_seed(0)
    backbone = VisionTransformerSAM(img_size=SIZE_PX, patch_size=16, embed_dim=24, depth=1, num_heads=2, num_classes=0)
    network = Network(backbone, network_of("test_resnet").config).eval()
    changed = pixels[:1].clone()
    changed[:, :16, 48:] = 255  # row 0, column 3
    cam = Remembering(network)
    assert cam(pixels[:1])[1].shape == (1, 4, 4)
    cam(changed)
    assert ((cam.laid[0] - cam.laid[1]).abs().sum(0) > 1e-3).nonzero().tolist() == [[0, 3]]


def test_a_map_leaves_no_hook_behind(pixels):
    network = network_of("test_vit")
    GradCam(network)(pixels)
    assert not any(module._forward_hooks for module in network.backbone.modules())


def test_frozen_weights_are_explained_too(pixels):
    network = network_of("test_resnet")
    network.freeze_backbone(True)
    assert GradCam(network)(pixels)[1].abs().max() > 0


@pytest.mark.parametrize("element", range(8))
def test_turning_back_undoes_a_view(element):
    maps = torch.arange(9.0).reshape(1, 3, 3)
    assert torch.equal(turn_back(dihedral(maps[..., None], element).squeeze(-1), element), maps)


def test_views_are_averaged_and_turned_back(pixels):
    network = network_of("test_resnet")
    found = explain_views(GradCam(network), pixels)
    assert found.maps.shape == (2, 8, 2, 2)
    assert found.logits.shape == (2, 8) and np.allclose(found.logits.mean(1), view_logits(network, pixels), atol=1e-6)
    turned = explain_views(GradCam(network), dihedral(pixels, 1))
    assert np.allclose(turned.logits.mean(1), found.logits.mean(1), atol=1e-5)
    assert np.allclose(np.rot90(found.maps.mean(axis=1), 1, (1, 2)), turned.maps.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("features", [lambda images: images.flatten(1), lambda images: [images, images]])
def test_a_backbone_without_a_feature_map_is_refused_in_one_line(features):
    cam = GradCam(network_of("test_resnet"))
    cam.network.backbone.forward_features = features
    with pytest.raises(UserError, match=r"^explain: test_resnet has no feature map for Grad-CAM; explain a run of"):
        cam(torch.zeros(1, SIZE_PX, SIZE_PX, 3, dtype=torch.uint8))


def test_tokens_that_make_no_square_are_refused_in_one_line(pixels):
    network = network_of("test_vit")
    network.backbone.blocks[-1].norm1.register_forward_hook(lambda module, given, output: output[:, :53])
    with pytest.raises(UserError, match=r"^explain: test_vit has no feature map"):
        GradCam(network)(pixels)
