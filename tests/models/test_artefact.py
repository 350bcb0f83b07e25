import json
import pickle

import numpy as np
import pytest
import torch

from pcam_ssl.errors import UserError
from pcam_ssl.models.artefact import load_network, load_weights, save_facts, save_weights
from pcam_ssl.models.network import build_network

CPU = torch.device("cpu")


@pytest.fixture
def network():
    torch.manual_seed(0)
    built = build_network("test_resnet", False, 32)
    built.train()(torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8))  # batch norms that have counted
    return built.eval()


@pytest.fixture
def folder(network, tmp_path):
    save_weights(tmp_path, network)
    precision = {"name": "fp32", "channels_last": False, "why": "a test"}
    save_facts(tmp_path, network, fold=3, calibration={"temperature": 1.5}, precision=precision)
    return tmp_path


def refusal(folder) -> str:
    with pytest.raises(UserError) as caught:
        load_network(folder, CPU)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_loaded_network_predicts_the_same_to_the_bit(network, folder):
    back, facts = load_network(folder, CPU)
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8))
    assert torch.equal(back(pixels)["logit"], network(pixels)["logit"])
    assert (facts["fold"], facts["calibration"]) == (3, {"temperature": 1.5})


def test_normalisation_and_batch_norm_counts_are_saved(network, folder):
    back, _ = load_network(folder, CPU)
    theirs, mine = back.state_dict(), network.state_dict()
    assert list(theirs) == list(mine)
    assert all(torch.equal(theirs[name], mine[name]) and theirs[name].dtype == mine[name].dtype for name in mine)
    assert {"mean", "std"} <= set(theirs)


def test_a_loaded_network_is_in_eval_mode(folder):
    assert not load_network(folder, CPU)[0].training


def test_weights_are_as_readable_as_the_facts(folder):
    assert (folder / "model.safetensors").stat().st_mode == (folder / "model.json").stat().st_mode


def test_a_pickle_is_never_loaded(folder):
    class Payload:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    (folder / "model.safetensors").write_bytes(pickle.dumps(Payload()))
    assert "model.safetensors: damaged (" in refusal(folder)
    assert not (folder / "ran").exists()


def test_truncated_weights_are_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert refusal(folder).endswith(f"delete {folder} and train that fold again")


def test_absent_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: no such file; train the run to its end first" in refusal(folder)


def test_absent_facts_are_refused(folder):
    (folder / "model.json").unlink()
    assert refusal(folder) == f"{folder}: holds no trained network; train the run to its end first"


def test_damaged_facts_are_refused(folder):
    (folder / "model.json").write_text("{")
    assert "model.json: damaged (" in refusal(folder)


def test_another_format_is_refused(folder):
    facts = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**facts, "format": 99}))
    assert "model.json: format 99, this pcam-ssl reads 1; use the pcam-ssl that trained it" in refusal(folder)


def test_weights_of_another_network_are_refused(folder):
    with pytest.raises(
        UserError, match=r"model.safetensors: belongs to another network \(.*\); name a run with the same model section"
    ):
        load_weights(folder, build_network("test_vit", False, 32))
