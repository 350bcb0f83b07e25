"""Checkpoints as `timm.models.save_for_hf` writes them, by which most repositories of the hub were made, named as `local-dir:`."""

import json

import numpy as np
import pytest
import timm
import torch
from timm.models import save_for_hf

from pcam_ssl.errors import UserError
from pcam_ssl.models.network import build_network, rebuild_network
from pcam_ssl.search.embed import embed_source


@pytest.fixture(params=[("test_vit", "avg"), ("test_resnet", "max")], ids=lambda param: " ".join(param))
def saved(request, tmp_path):
    """A folder and the model in it: a classifier of 3 classes with a pooling that is not the architecture's own."""
    architecture, pool = request.param
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=3, global_pool=pool).eval()
    save_for_hf(model, tmp_path / "model", safe_serialization=True)
    held = json.loads((tmp_path / "model" / "config.json").read_text())["model_args"]
    assert (held["num_classes"], held["global_pool"], held["in_chans"]) == (3, pool, 3)
    return f"local-dir:{tmp_path / 'model'}", model


def patches(n: int = 2) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, 64, 64, 3), dtype=np.uint8))


def test_its_embedding_is_what_the_saved_model_pools(saved):
    name, model = saved
    network = build_network(name, True, 64)
    with torch.inference_mode():
        images = network.prepare(patches())
        expected = model.forward_head(model.forward_features(images), pre_logits=True)
        assert torch.equal(network.backbone(images), expected)


def test_its_config_builds_the_same_network_again(saved):
    network = build_network(saved[0], True, 64)
    again = rebuild_network(json.loads(json.dumps(network.config.to_dict()))).eval()
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        assert torch.equal(again(patches())["logit"], network(patches())["logit"])


def test_it_embeds_a_source(saved, slides, tmp_path):
    name, model = saved
    facts, _ = embed_source(slides, tmp_path / "out", model=name)
    assert facts["network"]["model"] == name
    assert np.load(tmp_path / "out" / "embeddings.npy").shape == (96, model.num_features)


def test_random_weights_of_its_architecture_have_its_pooling(saved):
    name, model = saved
    assert build_network(name, False, 64).backbone.pretrained_cfg["architecture"] == model.pretrained_cfg["architecture"]
    assert build_network(name, False, 64).config.arguments["global_pool"] == model._model_args["global_pool"]


def test_dropout_of_the_checkpoint_is_not_used(saved, tmp_path):
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    config["model_args"] |= {"drop_rate": 0.3, "drop_path_rate": 0.2}
    path.write_text(json.dumps(config))
    assert {"drop_rate", "drop_path_rate"} & set(build_network(saved[0], False, 64).config.arguments) == set()


def test_a_checkpoint_of_one_channel_is_refused(tmp_path):
    save_for_hf(timm.create_model("test_resnet", in_chans=1), tmp_path, safe_serialization=True)
    with pytest.raises(UserError, match=r"model.name: local-dir:.* takes 1 channels and patches have 3; take another backbone"):
        build_network(f"local-dir:{tmp_path}", True, 64)


def test_a_checkpoint_without_pooling_is_refused_with_the_key_to_set(tmp_path):
    save_for_hf(timm.create_model("test_vit", global_pool=""), tmp_path, safe_serialization=True)
    with pytest.raises(UserError, match=r"was saved without pooling; .* set global_pool in its config.json"):
        build_network(f"local-dir:{tmp_path}", True, 64)
