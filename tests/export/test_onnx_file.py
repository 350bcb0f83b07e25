import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from pcam_ssl.errors import UserError
from pcam_ssl.export import onnx as onnx_file
from pcam_ssl.export.onnx import Exported, Member, largest_differences, require_onnx, write_onnx
from pcam_ssl.models.network import Network, build_network

SIZE_PX = 48


@pytest.fixture(scope="module")
def exported():
    """A network that shrinks its patches first, which few exporters do alike."""
    torch.manual_seed(0)
    network = build_network("test_resnet", False, SIZE_PX, image_size=32, projection=8)
    torch.nn.init.normal_(network.head.weight)
    return Exported([Member("fold-0", network, "digest")], 1.7).eval()


@pytest.fixture(scope="module")
def patches():
    return np.random.default_rng(0).integers(0, 256, (9, SIZE_PX, SIZE_PX, 3), np.uint8)


@pytest.fixture(scope="module")
def file(exported, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "network.onnx"
    write_onnx(path, exported, SIZE_PX, {"pcam_ssl.model": "test_resnet"}, "Scores patches.")
    return path


def test_the_file_takes_bytes_in_batches_of_any_size(file, patches):
    session = onnxruntime.InferenceSession(file)
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("pixels", "tensor(uint8)", ["batch", SIZE_PX, SIZE_PX, 3])
    ]
    for n in (1, 2, 9):
        outputs = dict(zip(("logit", "prob", "embedding"), session.run(None, {"pixels": patches[:n]}), strict=True))
        assert {name: output.shape for name, output in outputs.items()} == {"logit": (n,), "prob": (n,), "embedding": (n, 8)}


def test_the_file_gives_the_outputs_of_torch(file, exported, patches):
    differences = largest_differences(file, exported, patches)
    assert list(differences) == ["logit", "prob", "embedding"]
    assert max(differences.values()) < 1e-5


def test_the_file_is_valid_complete_and_has_its_metadata(file):
    model = onnx.load(file)
    onnx.checker.check_model(model)
    assert {each.key: each.value for each in model.metadata_props}["pcam_ssl.model"] == "test_resnet"
    assert (model.producer_name, model.doc_string) == ("pcam-ssl", "Scores patches.")
    assert [path.name for path in file.parent.iterdir()] == ["network.onnx"]


def changed(exported, name, value):
    """The same network with one tensor filled with `value`."""
    network = build_network("test_resnet", False, SIZE_PX, image_size=32, projection=8)
    network.load_state_dict(exported.networks[0].state_dict() | {name: torch.full_like(network.state_dict()[name], value)})
    return Exported([Member("fold-0", network, "digest")], 1.7).eval()


def test_another_network_differs_in_the_outputs_that_it_changes(file, exported, patches):
    more = exported.networks[0].head.bias.item() + 1
    differences = largest_differences(file, changed(exported, "head.bias", more), patches)
    assert differences["logit"] == pytest.approx(1, abs=1e-5)
    assert differences["embedding"] < 1e-5


def test_nan_is_an_infinite_difference(file, exported, patches):
    assert largest_differences(file, changed(exported, "head.bias", float("nan")), patches)["logit"] == np.inf


def test_the_last_patches_are_checked_too(file, exported, patches, monkeypatch):
    monkeypatch.setattr(onnx_file, "SOME", 2)
    whole = largest_differences(file, changed(exported, "projection.weight", 0.5), patches)["embedding"]
    alone = [largest_differences(file, changed(exported, "projection.weight", 0.5), patches[[n]])["embedding"] for n in range(9)]
    assert whole == pytest.approx(max(alone), abs=1e-6)


def test_weights_beyond_two_gigabytes_are_refused(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST_BYTES", 1000)
    with pytest.raises(UserError, match="one ONNX file holds 2 GB"):
        write_onnx(tmp_path / "network.onnx", exported, SIZE_PX, {}, "")
    assert list(tmp_path.iterdir()) == []


class Fickle(Network):
    """Looks at its patches before it decides what to do, which no graph can."""

    def forward(self, pixels):
        return super().forward(pixels if pixels.float().mean() > 100 else 255 - pixels)


def test_a_network_that_cannot_be_exported_is_named(exported, tmp_path):
    network = exported.networks[0]
    fickle = Fickle(network.backbone, network.config)
    with pytest.raises(UserError, match="torch cannot export test_resnet"):
        write_onnx(tmp_path / "network.onnx", Exported([Member("fold-0", fickle, "digest")], 1.0), SIZE_PX, {}, "")


@pytest.mark.parametrize("name", ["onnx", "onnxscript", "onnxruntime"])
def test_an_absent_package_is_named_with_the_install_command(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=rf"{name} is not installed; pip install 'pcam-ssl\[export\]'"):
        require_onnx()
