"""What a fold starts from and what of it learns: other runs' weights, frozen backbones, the head first, a compiled network."""

import inspect
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.exc import BackendCompilerFailed

from pcam_ssl.errors import UserError
from pcam_ssl.models.network import Network
from pcam_ssl.records import read_metrics
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

STILL = ("train.epochs=1", "optim.name=sgd", "optim.lr=1e-12", "model.freeze_backbone=true")


def weights(run: Run, k: int) -> dict[str, torch.Tensor]:
    return load_file(run.fold(k) / "model.safetensors")


def same(a, b, names) -> bool:
    return all(torch.equal(a[name], b[name]) for name in names)


@pytest.fixture(scope="module")
def refusal(train, tmp_path_factory):
    def refusal(*settings) -> str:
        out = tmp_path_factory.mktemp("refused") / "run"
        with pytest.raises(UserError) as caught:
            train(out, *settings)
        assert not out.exists()
        return str(caught.value)

    return refusal


@pytest.fixture(scope="module")
def still(train, finished, tmp_path_factory):
    """A run that starts from the finished one and hardly moves."""
    out = tmp_path_factory.mktemp("still") / "run"
    return train(out, *STILL, f"model.init={finished.path}", f"cv.folds_file={finished.paths.folds}")


@pytest.mark.parametrize("k", [0, 1])
def test_fold_k_starts_from_fold_ks_weights(still, finished, k):
    assert same(weights(still, k), weights(finished, k), [name for name in weights(still, k) if name.startswith("backbone.")])
    torch.testing.assert_close(weights(still, k)["head.weight"], weights(finished, k)["head.weight"])
    assert not torch.equal(weights(still, k)["head.weight"], weights(finished, 1 - k)["head.weight"])


def test_a_frozen_backbone_keeps_weights_and_statistics_to_the_bit_while_the_head_learns(train, finished, tmp_path):
    run = train(tmp_path / "run", "model.freeze_backbone=true", f"model.init={finished.path}")
    before, after = weights(finished, 0), weights(run, 0)
    backbone = [name for name in before if name.startswith("backbone.")]
    assert any(name.endswith("running_mean") for name in backbone)
    assert same(before, after, backbone)
    assert not torch.equal(before["head.weight"], after["head.weight"])


def test_head_first_frees_the_backbone_afterwards(train, finished, tmp_path):
    run = train(tmp_path / "run", "model.head_first_epochs=1", "train.epochs=2", f"model.init={finished.path}")
    before, after = weights(finished, 0), weights(run, 0)
    assert not torch.equal(before["backbone.conv1.0.weight"], after["backbone.conv1.0.weight"])


def test_other_folds_are_refused(refusal, finished):
    text = refusal(f"model.init={finished.path}", "cv.folds=3")
    assert (
        text
        == f"model.init: {finished.path} has other folds, so its weights may have seen slides that this run scores; set cv.folds_file={finished.paths.folds}"
    )


def test_weights_that_learned_more_labels_than_the_budget_are_refused(refusal, finished):
    text = refusal(f"model.init={finished.path}", f"cv.folds_file={finished.paths.folds}", "data.label_budget=40")
    assert text.startswith(f"model.init: {finished.path} learned from 40 labels that data.label_budget=40 hides here;")


def test_other_inner_slides_are_refused(refusal, finished):
    assert "has other folds" in refusal(f"model.init={finished.path}", "seed=1")


def test_an_unfinished_run_is_refused(refusal, finished, tmp_path):
    copy = shutil.copytree(finished.path, tmp_path / "copy")
    (copy / "fold-1" / "fold.json").unlink()
    assert refusal(f"model.init={copy}") == f"model.init: {copy} has not finished fold 1; run its command again until it is done"


def test_no_run_to_start_from_is_refused(refusal, tmp_path):
    assert "no run there" in refusal(f"model.init={tmp_path}/nowhere")


def test_weights_of_another_backbone_are_refused(train, finished, tmp_path):
    with pytest.raises(UserError, match=r"fold-0/model.safetensors: belongs to another network"):
        train(tmp_path / "run", f"model.init={finished.path}", "model.name=test_vit", "model.image_size=32")


def test_the_flag_compiles_the_network(train, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(Network, "compile", lambda network, dynamic: compiled.append((type(network), dynamic)))
    train(tmp_path / "run", "train.compile=true", "train.epochs=1")
    assert compiled == [(Network, False)] * 2  # for one size of batches


def test_a_compiler_that_fails_is_one_line(train, tmp_path, monkeypatch):
    def compile(network, dynamic):
        def forward(pixels):
            raise BackendCompilerFailed(lambda: None, RuntimeError("no C++ compiler"), inspect.currentframe())

        network.forward = forward

    monkeypatch.setattr(Network, "compile", compile)
    with pytest.raises(UserError) as caught:
        train(tmp_path / "run", "train.compile=true")
    assert str(caught.value).startswith("train.compile: torch cannot compile here (")
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(train, tmp_path):
    settings = ("train.epochs=1", "cv.inner_share=0.45", "train.samples_per_epoch=32", "score.resamples=100")
    run = train(tmp_path / "compiled", *settings, "train.compile=true", only=[0])
    plain = train(tmp_path / "plain", *settings, only=[0])
    theirs, mine = (read_metrics(each.fold(0) / "metrics.jsonl")[0]["train_loss"] for each in (run, plain))
    assert theirs == pytest.approx(mine, rel=1e-3)
    logits = [read_table(each.fold(0) / "oof.parquet")[0].logit for each in (run, plain)]
    np.testing.assert_allclose(*logits, rtol=0, atol=0.05)


def test_dropout_of_the_recipe_acts_in_training(train, tmp_path):
    def first_loss(rate) -> float:
        more = (f"model.drop_rate={rate}", "train.epochs=1", "train.samples_per_epoch=16")
        return read_metrics(train(tmp_path / str(rate), *more, only=[0]).fold(0) / "metrics.jsonl")[0]["train_loss"]

    # One step from the same first weights on the same batch.
    assert abs(first_loss(0.9) - first_loss(0)) > 1e-3
