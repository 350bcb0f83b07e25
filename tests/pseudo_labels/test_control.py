"""The control of rounds: labels alone, steps and seed of the last students; made once, and again where it no longer fits."""

import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import added, table, verdict, weights

from pcam_ssl.cross_validation import fitting
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json
from pcam_ssl.results import RoundsVerdict
from pcam_ssl.runs.run import Run, run_in_use

FOLDS = (0, 1)
CONTROL = "pseudo.control=true"


@pytest.fixture(scope="module")
def controlled(two_rounds, make_rounds, tmp_path_factory):
    """(run, verdict, trainings) of a copy of `two_rounds` with a control: (unit, ids, steps, seed) of what was trained. Do not write into it."""
    path = shutil.copytree(two_rounds, tmp_path_factory.mktemp("controlled") / "run")
    with pytest.MonkeyPatch.context() as patch:
        seen = noted(patch)
        told = make_rounds(path, 2, CONTROL)
    return path, told, seen


def noted(patch) -> list[dict]:
    """What is trained from here on: unit, ids of its patches, steps of the whole training, and seed."""
    seen, fit, patches = [], fitting.fit, fitting.training_set

    def noting_patches(context, unit):
        found = patches(context, unit)
        ids = set(context.dataset.patches.set_index("row").id.loc[found.rows])
        seen.append({"folder": context.run.path.name, "unit": unit.name, "ids": ids, "pseudo": len(found) - found.n_labelled})
        return found

    def noting_fit(training, stream, plan, **more):
        seen[-1] |= {"steps": plan.total, "seed": plan.seed}
        return fit(training, stream, plan, **more)

    patch.setattr(fitting, "training_set", noting_patches)
    patch.setattr(fitting, "fit", noting_fit)
    return seen


@pytest.fixture
def copy(controlled, tmp_path):
    """A copy of the run with two rounds and a control."""
    return shutil.copytree(controlled[0], tmp_path / "copy")


def test_it_trains_on_the_labels_of_round_0_alone(controlled, two_rounds):
    _, _, seen = controlled
    folds = table(two_rounds / "folds.parquet")
    assert [(each["folder"], each["unit"], each["pseudo"]) for each in seen] == [("control", "fold-0", 0), ("control", "fold-1", 0)]
    for fold, each in zip(FOLDS, seen, strict=True):
        trains = (folds.fold != fold) & ~folds[f"inner_{fold}"] & folds.visible
        assert each["ids"] == set(folds.id[trains])
        assert not each["ids"] & set(added(two_rounds, 2, fold).id)


def test_it_takes_the_steps_and_the_seed_of_the_last_students(controlled, two_rounds, make_rounds, monkeypatch, tmp_path):
    _, told, seen = controlled
    path = shutil.copytree(two_rounds, tmp_path / "run", ignore=shutil.ignore_patterns("round-2", "rounds.json"))
    students = noted(monkeypatch)
    make_rounds(path, 2)
    assert [each["steps"] for each in seen] == [each["steps"] for each in students] == told["control"]["steps"]
    assert [each["seed"] for each in seen] == [each["seed"] for each in students]
    assert all(more > before for more, before in zip(told["control"]["steps"], told["control"]["round_0_steps"], strict=True))
    steps = [
        read_json(controlled[0] / name / f"fold-{fold}" / "fold.json")["steps"] for name in ("control", "round-2") for fold in FOLDS
    ]
    assert steps == told["control"]["steps"] * 2


def test_it_is_a_run_with_out_of_fold_scores_that_says_whose_control_it_is(controlled, two_rounds):
    run, told, _ = controlled
    info = Run(run / "control").info()
    assert (info["status"], info["control_of"]["round"], info["learned_from_pool"]) == ("done", 2, False)
    assert told["control"]["folder"] == str(run / "control")
    oof, first = (table(path / "oof.parquet") for path in (run / "control", two_rounds))
    assert oof.id.tolist() == first.id.tolist() and not np.array_equal(oof.prob, first.prob)
    scored = read_json(run / "control" / "scores.json")["out_of_fold"]["scores"]["auroc"]
    assert told["control"]["out_of_fold"]["auroc"]["value"] == pytest.approx(scored["value"])


def test_rounds_are_compared_with_it(controlled):
    _, told, _ = controlled
    alone = told["control"]["out_of_fold"]["auroc"]["value"]
    assert told["rounds"][0]["against_control"] is None
    for row in (*told["rounds"][1:], told["chosen_by_fold"]):
        assert row["against_control"]["auroc"]["value"] == pytest.approx(row["out_of_fold"]["auroc"]["value"] - alone)
        assert row["against_control"]["auroc"]["low"] is not None
    first = told["rounds"][0]["out_of_fold"]["auroc"]["value"]
    assert told["control"]["against_round_0"]["auroc"]["value"] == pytest.approx(alone - first)


def test_rounds_are_left_as_they_were(controlled, two_rounds):
    for path in two_rounds.glob("round-*/fold-*/*"):
        if path.suffix != ".html":
            assert path.read_bytes() == (controlled[0] / path.relative_to(two_rounds)).read_bytes(), path


def test_what_it_cost_is_counted(controlled):
    _, told, _ = controlled
    assert told["control"]["cost"] == {"patch_passes": sum(told["control"]["steps"]) * 8, "cached": False}
    assert told["rounds"][2]["cost"] == told["control"]["cost"]
    assert told["rounds"][0]["cost"]["patch_passes"] == sum(told["control"]["round_0_steps"]) * 8


def test_it_is_not_trained_twice(copy, make_rounds, monkeypatch):
    seen, before = noted(monkeypatch), verdict(copy)
    make_rounds(copy, 2, CONTROL)
    assert not seen and verdict(copy) == before


def test_after_another_round_it_is_trained_again(copy, controlled, make_rounds, capsys):
    told = make_rounds(copy, 3, CONTROL)
    assert told["control"]["of_round"] == Run(copy / "control").info()["control_of"]["round"] == 3
    assert "the control of other rounds; it is trained again" in capsys.readouterr().err
    assert weights(copy, "control", "fold-0") != weights(controlled[0], "control", "fold-0")
    assert not [path for path in copy.iterdir() if "dropped" in path.name]


def test_without_it_the_verdict_says_what_is_unknown_and_uses_round_0(two_rounds_copy, command, selection_words):
    done = command("pseudo-label", two_rounds_copy, "--rounds", 2, "--no-control", *selection_words("pseudo.control=true"))
    assert done.code == 0, done.err
    told = read_json(two_rounds_copy / "rounds.json")
    assert (told["control"], told["best"]) == (None, 0)
    assert told["best_inner"] == 0 or "no control was trained" in told["why"]
    assert "it is not known whether longer training alone does the same" in told["verdict"]
    assert not (two_rounds_copy / "control").exists()


def test_one_that_is_there_counts_with_no_control_too(copy, make_rounds):
    assert make_rounds(copy, 2, "pseudo.control=false")["control"]["of_round"] == 2


def test_the_key_is_no_part_of_what_a_round_is(copy, make_rounds, capsys):
    for setting in ("pseudo.control=false", CONTROL):
        make_rounds(copy, 2, setting)
    assert "trained again" not in capsys.readouterr().err


def test_the_verdict_has_it_as_a_run(controlled, two_rounds):
    assert RoundsVerdict(controlled[1]).control.path == controlled[0] / "control"
    assert RoundsVerdict(read_json(two_rounds / "rounds.json")).control is None


def test_what_is_in_use_is_what_the_verdict_says(copy, capsys):
    told = read_json(copy / "rounds.json")
    assert run_in_use(copy).path == (copy / f"round-{told['best']}" if told["best"] else copy)
    assert f"uses round {told['best']}, {told['why']}; name" in capsys.readouterr().err


def test_pooled_rounds_have_none(fresh, make_rounds):
    assert make_rounds(fresh, 1, CONTROL, pooled=True)["control"] is None
    assert not (fresh / "pooled" / "control").exists()


def test_a_stranger_at_its_place_is_refused_before_a_round_is_made(fresh, round_0, make_rounds):
    shutil.copytree(round_0, fresh / "control")
    with pytest.raises(UserError, match=r"control: holds another run, where these rounds put their control; choose another --out"):
        make_rounds(fresh, 1, CONTROL)
    assert not (fresh / "round-1").exists()


class TestHeadsFittedToTheOptimum:
    FROZEN = ("model.freeze_backbone=true", "optim.name=lbfgs", "views.policy=d4", "data.label_budget=56", "cv.inner_folds=2")

    @pytest.fixture(scope="class")
    def fitted(self, train, tmp_path_factory):
        """A finished run of heads by L-BFGS. Do not write into it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PCAM_SSL_CACHE", str(tmp_path_factory.mktemp("cache")))
            yield train(tmp_path_factory.mktemp("fitted") / "run", *self.FROZEN).path

    @pytest.fixture
    def run(self, fitted, tmp_path):
        return shutil.copytree(fitted, tmp_path / "run")

    def test_nothing_is_trained_because_the_control_is_round_0(self, run, make_rounds):
        told = make_rounds(run, 1, CONTROL, "pseudo.noise=same")
        assert (told["control"]["is_round_0"], told["control"]["folder"]) == (True, None)
        assert not (run / "control").exists()
        assert told["control"]["out_of_fold"] == told["rounds"][0]["out_of_fold"]
        assert told["rounds"][1]["against_control"] == told["rounds"][1]["against_round_0"]
        assert "round 0, which is the control too" in told["verdict"]
        assert told["rounds"][1]["cost"] == {"patch_passes": None, "cached": True}

    def test_a_control_would_repeat_round_0_to_the_bit(self, run, make_rounds, monkeypatch):
        monkeypatch.setattr("pcam_ssl.pseudo_labels.control.repeats_round_0", lambda rounds: False)
        make_rounds(run, 1, CONTROL, "pseudo.noise=same")
        pd.testing.assert_frame_equal(table(run / "control" / "oof.parquet"), table(run / "oof.parquet"), check_exact=True)

    def test_students_of_another_recipe_have_a_control_of_theirs(self, run, make_rounds):
        told = make_rounds(run, 1, CONTROL, "pseudo.noise=same", "optim.c=0.001")
        assert (told["control"]["is_round_0"], told["control"]["steps"]) == (False, None)
        assert not np.array_equal(table(run / "control" / "oof.parquet").prob, table(run / "oof.parquet").prob)


def test_inner_networks_take_the_steps_of_the_students_too_and_nothing_is_refitted(train, make_rounds, monkeypatch, tmp_path):
    monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path / "cache"))
    frozen = ("model.freeze_backbone=true", "model.head=mlp", "model.hidden=8", "views.policy=d4", "cv.inner_folds=2")
    run = train(tmp_path / "run", *frozen, "data.label_budget=56", "train.batch_size=8", "train.epochs=1", "cv.refit=true").path
    seen = noted(monkeypatch)
    told = make_rounds(run, 1, CONTROL, "pseudo.noise=same", "pseudo.k_best=12")
    students, control = ([each for each in seen if each["folder"] == name] for name in ("round-1", "control"))
    assert any(each["unit"] == "refit" for each in students)
    students = [each for each in students if not each["unit"].startswith("refit")]
    assert [each["unit"] for each in control] == [each["unit"] for each in students] and len(control) == 6
    assert [(each["steps"], each["seed"]) for each in control] == [(each["steps"], each["seed"]) for each in students]
    assert all(each["pseudo"] for each in students) and not any(each["pseudo"] for each in control)
    assert told["control"]["cost"] == {"patch_passes": None, "cached": True}
