"""`model.weights`: what training scripts save loads into the backbone to the bit, and what does not fit is refused in one line."""

import os

import pytest
import timm
import torch
from safetensors.torch import save_file

from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file
from pcam_ssl.models.network import build_network
from pcam_ssl.models.weights_file import load_weights_file


@pytest.fixture
def theirs() -> dict[str, torch.Tensor]:
    """The state dict of a network with a classifier, as a user trained it."""
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=3).state_dict()


@pytest.fixture
def network():
    return build_network("test_resnet", False, 32)


@pytest.fixture
def refusal(network, tmp_path):
    """refusal(content): the line that refuses a file of it; the network keeps its weights."""

    def refusal(content, name="weights.pt", **options) -> str:
        path = tmp_path / name
        if not path.exists():
            torch.save(content, path)
        before = {key: value.clone() for key, value in network.state_dict().items()}
        with pytest.raises(UserError) as caught:
            load_weights_file(network, path, **options)
        assert all(value.equal(before[key]) for key, value in network.state_dict().items())
        (line,) = caught.value.problems
        assert line.startswith("model.weights: ") and "\n" not in line and caught.value.next
        return line

    return refusal


def prefixed(tensors: dict, prefix: str) -> dict:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


SAVED = {
    "plain": lambda tensors: tensors,
    "state_dict": lambda tensors: {"epoch": 3, "state_dict": tensors},
    "model": lambda tensors: {"model": tensors, "optimizer": {"lr": 0.1}},
    "teacher": lambda tensors: {
        "student": tensors,
        "teacher": {**prefixed(tensors, "module.backbone."), "module.head.last.weight": torch.zeros(4)},
    },
    "nested": lambda tensors: {"model": {"state_dict": prefixed(tensors, "module.")}},
    "encoder": lambda tensors: prefixed(tensors, "encoder."),
    "backbone.module": lambda tensors: prefixed(tensors, "backbone.module."),
}


@pytest.mark.parametrize("saved", SAVED)
def test_it_loads_to_the_bit_however_it_was_saved(saved, theirs, network, tmp_path):
    torch.save(SAVED[saved](theirs), tmp_path / "weights.pt")
    loaded = load_weights_file(network, tmp_path / "weights.pt")
    assert all(value.equal(theirs[name]) for name, value in network.backbone.state_dict().items())
    assert loaded.digest == digest_file(tmp_path / "weights.pt") and not loaded.own


def test_safetensors_load_too(theirs, network, tmp_path):
    save_file(theirs, tmp_path / "weights.safetensors")
    load_weights_file(network, tmp_path / "weights.safetensors")
    assert network.backbone.conv1[0].weight.equal(theirs["conv1.0.weight"])


def test_a_head_is_left_out_and_named(theirs, network, tmp_path):
    torch.save(theirs, tmp_path / "weights.pt")
    before = network.head.weight.clone()
    loaded = load_weights_file(network, tmp_path / "weights.pt")
    assert loaded.left_out == ("fc.weight", "fc.bias") and network.head.weight.equal(before)
    line = loaded.line("test_resnet")
    assert line.startswith(f"model.weights: test_resnet starts from {tmp_path}/weights.pt (SHA-256 {loaded.digest[:12]})")
    assert line.endswith("; left out its head (fc.weight, fc.bias)")


def test_weights_of_a_run_bring_their_normalisation_and_say_that_they_saw_labels(network, tmp_path):
    tensors = {**network.state_dict(), "mean": network.mean * 0 + 51.0, "std": network.std * 0 + 102.0}
    save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "model.safetensors")
    loaded = load_weights_file(network, tmp_path / "model.safetensors")
    assert set(loaded.left_out) == {"head.weight", "head.bias", "mean", "std"}
    assert network.config.mean == pytest.approx((0.2,) * 3) and network.config.std == pytest.approx((0.4,) * 3)
    assert network.mean.unique().tolist() == [51.0]
    assert loaded.own and "trained it on labels" in loaded.line("test_resnet")


def test_all_that_does_not_fit_is_in_one_line(theirs, refusal):
    del theirs["bn1.weight"]
    theirs |= {"extra.weight": torch.zeros(1), "conv1.0.weight": torch.zeros(1, 2)}
    line = refusal(theirs)
    assert (
        "does not fit test_resnet: 1 missing (bn1.weight), 1 unexpected (extra.weight), 1 of another shape (conv1.0.weight [1, 2]"
        in line
    )


def test_integers_are_not_converted(theirs, refusal):
    assert "bn1.weight [32] int64 for [32]" in refusal({**theirs, "bn1.weight": torch.ones(32, dtype=torch.int64)})


def test_a_long_list_is_cut(refusal):
    line = refusal(timm.create_model("test_vit").state_dict())
    assert " missing (conv1.0.weight, " in line and " more)" in line and len(line) < 700


class Harmful:
    def __reduce__(self):
        return os.mkdir, (self.folder,)

    def __init__(self, folder):
        self.folder = str(folder)


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(refusal, theirs, tmp_path):
    line = refusal({**theirs, "args": Harmful(tmp_path / "made")})
    assert "could run code" in line and "safetensors.torch.save_file" in line
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([1, 2], "holds no state dict"),
        ({"epoch": 3}, "holds no state dict"),
        ({"model": {"a": torch.zeros(1)}, "teacher": {"a": torch.zeros(1)}}, "holds model and teacher; save the one"),
    ],
    ids=["list", "no tensor", "two"],
)
def test_what_holds_no_one_state_dict_is_refused(refusal, content, words):
    assert words in refusal(content)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_a_damaged_file_is_refused(refusal, theirs, tmp_path, name):
    (save_file if name.endswith("safetensors") else torch.save)(theirs, tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not weights at all"):
        (tmp_path / name).write_bytes(content)
        refusal(None, name)


def test_another_content_than_the_digest_says_is_refused(refusal, theirs):
    line = refusal(theirs, digest="a" * 64)
    assert f"has changed (model.weights_digest: {'a' * 64} -> " in line
