"""The forecast before rounds: what it says and stores, when it stops the command, and what it must not see."""

import shlex
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from rounds_made import selection

from pcam_ssl.api import pseudo_label
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.files import read_json
from pcam_ssl.pseudo_labels.headroom import evidence, find_headroom, frozen_context, hopeless, inner_parts
from pcam_ssl.pseudo_labels.pool_likeness import TOO_MANY
from pcam_ssl.pseudo_labels.report import forecast_sentences, rounds_text
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

FROZEN = ("model.freeze_backbone=true", "optim.name=lbfgs", "views.policy=d4", "cv.inner_folds=2", "predict.d4=true")
ON = ("pseudo.headroom=true", "pseudo.noise=same")


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache):
    """Features of this file alone."""


@pytest.fixture(scope="module")
def frozen(train, tmp_path_factory):
    """A finished run of heads with a pool of 16 test patches. Do not write into it."""
    return train(tmp_path_factory.mktemp("frozen") / "run", *FROZEN).path


@pytest.fixture(scope="module")
def small_pool(train, slides, rewrite, tmp_path_factory):
    """A finished run of heads with a pool of one patch: its label can bring nothing. Do not write into it."""
    folder = tmp_path_factory.mktemp("small")
    data = rewrite(
        slides, folder / "data", lambda patches: pd.concat([patches[patches.label.notna()], patches[patches.label.isna()][:1]])
    )
    return train(folder / "run", *FROZEN, data=data).path


@pytest.fixture
def run(frozen, tmp_path):
    return shutil.copytree(frozen, tmp_path / "run")


@pytest.fixture
def stopped(small_pool, tmp_path):
    return shutil.copytree(small_pool, tmp_path / "run")


def opened(path, *settings):
    return open_rounds(Run(path), None, selection(*ON, *settings), path)


def forecast(path, *settings, anyway=True):
    return find_headroom(opened(path, *settings), anyway)


def files(folder) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and ".rounds." not in path.name}


class TestTheGate:
    def test_rounds_that_cannot_be_seen_to_help_end_in_one_line_and_nothing_is_written(self, stopped, command, selection_words):
        before = files(stopped)
        done = command("pseudo-label", stopped, "--rounds", 1, *selection_words(*ON))
        (problem,) = done.problems
        assert (done.code, done.out) == (2, "")
        assert problem.startswith(f"{stopped}: rounds cannot be seen to help here: all true labels of the pool would bring ")
        assert problem.endswith("; label patches of more slides, or go on with --anyway")
        assert files(stopped) == before

    def test_anyway_goes_on_and_later_rounds_are_not_gated(self, stopped, command, selection_words):
        done = command("pseudo-label", stopped, "--rounds", 1, "--anyway", *selection_words(*ON))
        assert done.code == 0, done.err
        told = read_json(stopped / "rounds.json")
        assert hopeless(told["headroom"]) is not None and len(told["rounds"]) == 2
        assert len(pseudo_label(stopped, rounds=2, settings=selection(*ON))["rounds"]) == 3

    def test_the_key_switches_it_off_between_two_calls(self, stopped, capsys):
        told = pseudo_label(stopped, rounds=1, settings=selection(*ON, "pseudo.headroom=false"))
        assert told["headroom"] is None and "headroom" not in capsys.readouterr().err
        assert pseudo_label(stopped, rounds=1, settings=selection(*ON))["headroom"]["ceiling"] is not None

    def test_a_pool_that_can_bring_more_than_can_be_seen_passes(self):
        assert hopeless({"ceiling": {"value": 0.01, "low": 0.0, "high": 0.02}, "resolvable": 0.02}) is None
        assert hopeless({"ceiling": {"value": 0.01, "low": 0.0, "high": 0.019}, "resolvable": 0.02}) is not None

    @pytest.mark.parametrize(
        "known", [{"resolvable": None}, {"ceiling": None}, {"ceiling": {"value": 0.0, "low": None, "high": None}}]
    )
    def test_what_is_not_known_stops_nothing(self, known):
        assert hopeless({"ceiling": {"value": 0.0, "low": 0.0, "high": 0.0}, "resolvable": 0.02, **known}) is None


def test_the_forecast_stands_in_the_verdict_beside_what_came(run, capsys):
    told = pseudo_label(run, rounds=1, settings=selection(*ON), anyway=True)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("headroom: ")]
    values = read_json(run / "rounds.json")["headroom"]
    assert values == told["headroom"] and (values["labels"], values["pool"]) == (40, 16)
    ceiling, came = values["ceiling"], told["chosen_by_fold"]["against_round_0"]["auroc"]
    text = " ".join(rounds_text(told).split())
    assert f"Forecast before the rounds: at most {ceiling['value']:+.3f} (" in text
    assert f"from knowing the pool; came: {came['value']:+.3f} (" in text
    assert all(line.removeprefix("headroom: ") in text for line in said) and len(said) == 3
    assert "Forecast before the rounds: at most" in (run / "report.html").read_text()


def test_it_is_the_same_each_time(frozen):
    assert forecast(frozen) == forecast(frozen)


def test_the_labels_that_a_fold_scores_do_not_change_its_heads(frozen):
    rounds = opened(frozen)
    context = frozen_context(rounds)
    parts = inner_parts(rounds, context.rows.label.to_numpy(np.int64))
    before = evidence(rounds, context, parts)
    other, scored = replace(context), rounds.folds.score_mask(0)
    other.__dict__["rows"] = context.rows.assign(label=context.rows.label.where(~scored, 1 - context.rows.label))
    after = evidence(rounds, other, parts)
    for name in ("logits", "learned", "c", "weight", "mean", "std"):
        mine, theirs = (np.asarray(getattr(found.heads[0], name)) for found in (before, after))
        assert np.array_equal(mine, theirs), name
    assert before.looks[0] == after.looks[0]
    assert not np.array_equal(before.heads[1].logits, after.heads[1].logits)


def test_the_advised_head_learns_the_same_labels_in_the_same_folds(train, command, tmp_path, monkeypatch):
    run = train(tmp_path / "a run", *FROZEN, "data.label_budget=56")
    values = forecast(run.path)
    monkeypatch.setattr("pcam_ssl.pseudo_labels.report.gain_word", lambda score: "a gain")
    advice = next(line for line in forecast_sentences(values) if "Take that first" in line)
    words = shlex.split(advice.split("`")[1])
    assert words[:2] == ["pcam-ssl", "baseline"] and words[-1] == f"{run.path}-head"
    done = command(*words[1:], "--set", "score.floor=false")
    assert done.code == 0, done.err
    head = Run(words[-1])
    mine, theirs = (read_table(each.paths.folds)[0][["id", "fold", "visible"]] for each in (head, run))
    pd.testing.assert_frame_equal(mine, theirs)
    assert auroc(head.oof.label.to_numpy(np.int64), head.oof.prob) == pytest.approx(values["head"], abs=0.05)


def test_heads_are_those_of_the_run_where_it_fits_to_the_optimum(frozen):
    """The same labels and features; only C is chosen among other values."""
    values = forecast(frozen)
    assert values["own"] and values["against_round_0"]["value"] == pytest.approx(0, abs=0.05)


def test_random_weights_have_no_forecast_and_rounds_are_made(fresh, capsys):
    told = pseudo_label(fresh, rounds=1, settings=selection("pseudo.headroom=true"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "headroom" in line]
    assert line.startswith("headroom: no forecast, because the backbone starts from random weights (model.pretrained=false)")
    assert told["headroom"] == {"reason": line.removeprefix("headroom: no forecast, because ")} and len(told["rounds"]) == 2
    assert "No forecast: the backbone starts from random weights" in " ".join(rounds_text(told).split())


def test_a_trained_backbone_is_forecast_on_the_features_of_its_first_weights(train, tmp_path, capsys):
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "weights.pt")
    run = train(tmp_path / "run", "train.epochs=1", f"model.weights={tmp_path / 'weights.pt'}")
    capsys.readouterr()
    values = forecast(run.path)
    said = capsys.readouterr().err
    assert not values["own"] and values["ceiling"] is not None
    assert "headroom: features of 96 patches by test_resnet as it was before training" in said
    assert "--set pseudo.headroom=false omits this" in said and "The run trains its backbone" in said


@pytest.fixture(scope="module")
def many_slides(tmp_path_factory):
    """A dataset of 12 train and 6 test slides with 20 patches each, of little difference in stain."""
    path = tmp_path_factory.mktemp("many") / "data"
    write_synthetic(path, slides=12, test_slides=6, patches=20, size_px=32, stain_shift=0.3, seed=1)
    return path


def looked_at(train, data, folder) -> dict:
    return forecast(train(folder / "run", *FROZEN, data=data).path)["likeness"]


def test_a_pool_like_the_training_slides_is_no_warning(train, many_slides, tmp_path, capsys):
    found = looked_at(train, many_slides, tmp_path)
    assert found["far"] <= TOO_MANY and "unlike" not in capsys.readouterr().err


def test_a_pool_of_another_stain_is_a_warning_before_rounds(train, many_slides, tmp_path, capsys, monkeypatch):
    """The same test patches with a green cast."""
    # The copy has the digest of the dataset, under which the cache holds other features.
    monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path / "cache"))
    data = shutil.copytree(many_slides, tmp_path / "data")
    patches = open_dataset(data).patches
    pixels = np.load(data / "pixels.npy", mmap_mode="r+")
    rows = patches.row[patches.split == "test"].to_numpy()
    pixels[rows] = (pixels[rows] * [0.6, 1, 0.6]).astype(np.uint8)
    pixels.flush()
    found = looked_at(train, data, tmp_path)
    assert found["far"] > 2 * TOO_MANY
    assert found["far_by_source"] == {"test": found["far"], "unlabelled": None, "hidden": None}
    said = f"WARNING: the pool looks unlike the training slides: {found['far']:.0%} of its test patches lie far"
    assert said in capsys.readouterr().err


def test_one_class_among_the_scored_patches_is_said(frozen, monkeypatch):
    rounds = opened(frozen)
    context = frozen_context(rounds)
    context.__dict__["rows"] = context.rows.assign(label=1)
    monkeypatch.setattr("pcam_ssl.pseudo_labels.headroom.frozen_context", lambda rounds: context)
    assert find_headroom(rounds)["reason"] == "the scored patches hold one class only"


def test_more_labels_than_are_used_are_sampled(frozen, monkeypatch):
    monkeypatch.setattr("pcam_ssl.pseudo_labels.headroom.MOST", 30)
    values = forecast(frozen)
    assert (values["budgets"][-1], values["labels"], values["against_round_0"]) == (30, 40, None)


def test_a_blend_has_no_forecast(frozen):
    rounds = replace(opened(frozen), members=("a", "b"))
    assert find_headroom(rounds)["reason"].endswith("is a blend, which has no features of its own")


def test_the_gate_is_a_user_error_of_python_too(stopped):
    with pytest.raises(UserError, match="--anyway"):
        pseudo_label(stopped, rounds=1, settings=selection(*ON))
