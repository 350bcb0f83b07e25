import pytest
import timm
from timm.models import save_for_hf

from pcam_ssl.errors import UserError
from pcam_ssl.models.backbone import create_backbone, resolve_backbone


def refusal(name: str, pretrained: bool = True) -> str:
    with pytest.raises(UserError) as caught:
        create_backbone(resolve_backbone(name, pretrained), pretrained, {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_backbone_names_the_nearest():
    assert refusal("resnt34").startswith("model.name: timm has no backbone resnt34. Did you mean resnet34")


def test_an_unknown_tag_lists_the_known_ones():
    text = refusal("resnet34.nonsense")
    assert text.startswith("model.name: resnet34 has no weights tagged nonsense; there are ")
    assert "resnet34.a1_in1k" in text


def test_a_backbone_without_published_weights_is_refused():
    assert refusal("resnet10t_nothing_like_this").startswith("model.name: timm has no backbone")
    assert refusal("test_resnet.none").startswith("model.name: test_resnet has no weights tagged none")


def test_unreachable_weights_name_the_next_step(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    text = refusal("resnet18")
    assert text.startswith("model.name: weights of resnet18 cannot be reached (")
    assert "set model.pretrained=false to train from scratch" in text


def test_an_unreachable_hub_address_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert refusal("hf-hub:nobody/nothing").startswith("model.name: weights of hf-hub:nobody/nothing cannot be reached (")


def test_a_folder_without_a_model_is_refused(tmp_path):
    assert refusal(f"local-dir:{tmp_path}").startswith(f"model.name: weights of local-dir:{tmp_path} cannot be reached (")


@pytest.fixture
def folder(tmp_path):
    """A model folder as Hugging Face lays it out."""
    model = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay={"mean": (0.1, 0.2, 0.3)})
    save_for_hf(model, tmp_path, safe_serialization=True)
    return tmp_path, model


def test_a_local_folder_provides_weights_and_normalisation(folder):
    path, model = folder
    resolved = resolve_backbone(f"local-dir:{path}", True)
    backbone = create_backbone(resolved, True, {})
    assert (resolved.architecture, resolved.defaults["mean"]) == ("test_resnet", [0.1, 0.2, 0.3])
    assert backbone.conv1[0].weight.equal(model.conv1[0].weight)


def test_a_shipped_backbone_resolves_without_a_hub():
    resolved = resolve_backbone("resnet34.a1_in1k", True)
    assert (resolved.architecture, resolved.arguments) == ("resnet34", {})
    assert resolved.defaults["mean"]
