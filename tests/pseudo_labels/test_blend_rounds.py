"""Rounds that start from a blend: fold K learns from the mean of its members' own fold K networks, none of which learned K's labels."""

import shutil
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
import scored
from round_outputs import decisions, table, turn, verdict, weights
from scipy.special import expit, logit

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import read_json
from pcam_ssl.pseudo_labels.rounds import pseudo_label
from pcam_ssl.report.operating_point import operating_point
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import write_table

FOLDS = (0, 1)
SELECT_ONLY = "pseudo.stop_share=0.99"
"""Nothing is trained: the round ends with its decisions."""


@pytest.fixture(scope="module")
def second(round_0, train, tmp_path_factory):
    """second(name, data): a run of the folds of `round_0` from other first weights and batches."""
    folder = tmp_path_factory.mktemp("second")
    fixed = ("data.label_budget=56", "train.batch_size=8", f"cv.folds_file={round_0 / 'folds.parquet'}")
    return lambda name, *more, data=None: train(folder / name, *fixed, *more, data=data).path


@pytest.fixture(scope="module")
def members(round_0, second):
    return round_0, second("other", "seed=5")


@pytest.fixture(scope="module")
def blend(members, tmp_path_factory):
    """A mean of two runs with one round in it. Do not write into it."""
    return blend_runs([str(path) for path in members], tmp_path_factory.mktemp("blends") / "mean").path


@pytest.fixture(scope="module")
def rounds(blend, make_rounds, tmp_path_factory):
    """A copy of `blend` with one round in it. Do not write into it."""
    path = shutil.copytree(blend, tmp_path_factory.mktemp("blends") / "rounds")
    make_rounds(path, 1)
    return path


def said_by(member, fold) -> pd.DataFrame:
    """What a member's network of a fold says of all the fold's pool, by id."""
    names = [path for name in ("test", "pool") if (path := member / f"fold-{fold}" / f"{name}.parquet").exists()]
    return pd.concat([table(path)[["id", "logit", "prob", "view_std"]] for path in names]).set_index("id")


@pytest.mark.parametrize("fold", FOLDS)
def test_decisions_use_the_mean_of_the_members_own_networks_of_the_fold(rounds, members, fold):
    rows = decisions(rounds, 1, fold).set_index("id")
    said = [said_by(member, fold).loc[rows.index] for member in members]
    assert rows.prob.to_numpy() == pytest.approx(np.mean([each.prob for each in said], axis=0), abs=1e-9)
    assert rows.view_std.to_numpy() == pytest.approx(np.mean([each.view_std for each in said], axis=0), abs=1e-9)
    assert len(rows) > len(table(members[0] / f"fold-{fold}" / "test.parquet"))


def test_a_logit_mean_labels_by_the_mean_of_calibrated_logits(members, make_rounds, tmp_path):
    run = blend_runs([str(path) for path in members], tmp_path / "blend", "logit-mean")
    make_rounds(run.path, 1, SELECT_ONLY)
    rows = decisions(run.path, 1, 0).set_index("id")
    wanted = expit(np.mean([logit(said_by(member, 0).prob.loc[rows.index]) for member in members], axis=0))
    assert rows.prob.to_numpy() == pytest.approx(wanted, abs=1e-9)


def test_inner_slides_are_predicted_by_the_same_mean(blend, members):
    for fold in FOLDS:
        ours, *theirs = (table(path / f"fold-{fold}" / "inner.parquet").set_index("id") for path in (blend, *members))
        wanted = np.mean([each.prob.loc[ours.index] for each in theirs], axis=0)
        assert ours.prob.to_numpy() == pytest.approx(wanted, abs=1e-12)
        assert len(ours) == len(theirs[0])


def test_decisions_name_the_networks_of_all_members(rounds, members):
    digests = "".join(sha256(weights(member, 0, "fold-0")).hexdigest() for member in members)
    assert set(decisions(rounds, 1, 0).network_digest) == {sha256(digests.encode()).hexdigest()}


def test_round_0_of_the_verdict_is_the_blend(rounds):
    told = verdict(rounds)
    blended = read_json(rounds / "scores.json")["out_of_fold"]["scores"]["auroc"]["value"]
    assert [row["number"] for row in told["rounds"]] == [0, 1]
    assert told["rounds"][0]["out_of_fold"]["auroc"]["value"] == pytest.approx(blended)
    gain = told["rounds"][1]["out_of_fold"]["auroc"]["value"] - blended
    assert told["rounds"][1]["against_round_0"]["auroc"]["value"] == pytest.approx(gain)


def test_students_train_under_the_recipe_of_the_first_member(rounds, round_0):
    ours, theirs = Run(rounds / "round-1").recipe, Run(round_0).recipe
    assert ours.model_copy(update={"pseudo": theirs.pseudo}) == theirs


def test_what_is_there_is_not_done_again(rounds, make_rounds, tmp_path, capsys):
    path = shutil.copytree(rounds, tmp_path / "run")
    make_rounds(path, 1)
    assert weights(path, 1, "fold-0") == weights(rounds, 1, "fold-0") and verdict(path) == verdict(rounds)
    assert "a blend has no recipe; its students and the precision check train with that of its first run" in capsys.readouterr().err


def test_the_history_of_a_patch(rounds, command):
    told = command("pseudo-label", rounds, "--explain", decisions(rounds, 1, 0).id.iloc[0])
    assert told.code == 0 and "In round 1, the latest" in told.out


def test_scrambled_labels_of_a_fold_change_nothing_that_it_learns_from(
    rounds, members, slides, rewrite, train, second, make_rounds, tmp_path
):
    folds = table(members[0] / "folds.parquet")
    data = rewrite(slides, tmp_path / "slides", turn(folds.id[folds.fold == 0]))
    turned = [second("first-turned", data=data), second("other-turned", "seed=5", data=data)]
    run = blend_runs([str(path) for path in turned], tmp_path / "blend")
    make_rounds(run.path, 1, SELECT_ONLY)
    pd.testing.assert_frame_equal(decisions(run.path, 1, 0), decisions(rounds, 1, 0), check_exact=True)
    mine, theirs = (table(path / "fold-0" / "inner.parquet") for path in (run.path, rounds))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert not decisions(run.path, 1, 1).equals(decisions(rounds, 1, 1))


def test_an_operating_point_is_chosen_on_inner_slides(blend):
    found = operating_point(read_facts(Run(blend)), Target("sensitivity", 0.5))
    assert [each.fold for each in found.thresholds] == [0, 1] and found.left_out == 0


def test_neighbours_label_as_they_were_blended(trained_run, make_rounds, tmp_path):
    specs = [str(trained_run), f"{trained_run}:knn", f"{trained_run}:blend"]
    run = blend_runs(specs, tmp_path / "blend")
    make_rounds(run.path, 1, SELECT_ONLY, "train.batch_size=8", "pseudo.agreement=true")
    test = table(run.path / "test.parquet")
    for fold in FOLDS:
        wanted = test[test.fold == fold].set_index("id")[["logit", "prob", "view_std"]]
        rows = decisions(run.path, 1, fold).set_index("id").loc[wanted.index]
        np.testing.assert_allclose(rows[["logit", "prob", "view_std"]], wanted, rtol=0, atol=1e-9)
    assert (run.path / "round-1" / "refit" / "pseudo.parquet").exists()


def refused(path, *settings) -> str:
    with pytest.raises(UserError) as found:
        pseudo_label(path, 1, settings=["pseudo.planted_share=0", *settings])
    assert not (path / "rounds.json").exists() and not (path / "round-1").exists()
    (line,) = found.value.problems
    return line


class TestRefused:
    @pytest.fixture
    def pair(self, tmp_path):
        return [scored.write_scored(tmp_path / name, seed=seed) for seed, name in enumerate("ab", 1)]

    @pytest.fixture
    def of(self, pair, tmp_path):
        return lambda *options: blend_runs([str(run.path) for run in pair], tmp_path / "out", *options)

    @pytest.mark.parametrize("options", [("weights",), ("greedy",), ("rank-mean",), ("mean", 0.99)])
    def test_weights_and_ranks_of_other_folds_networks(self, of, pair, options):
        run = of(*options)
        how = "--max-correlation" if len(options) > 1 else options[0]
        line = refused(run.path)
        assert line.startswith(f"{run.path}: a blend by {how} takes its weights or ranks from networks that learned the labels")
        assert line.endswith(f"start rounds from one of its runs ({pair[0].path}, {pair[1].path})")

    def test_a_member_that_is_gone(self, of, pair):
        run = of()
        shutil.rmtree(pair[1].path)
        assert refused(run.path).startswith(f"{run.path}: blends {pair[1].path}, which is not there any more; put it back")

    def test_a_member_whose_predictions_changed(self, of, pair):
        run = of()
        oof = pair[1].path / "oof.parquet"
        write_table(oof, table(oof).assign(logit=0.0))
        assert refused(run.path) == f"{run.path}: blends {oof}, which has changed since; blend again"

    def test_a_blend_of_blends(self, of, tmp_path):
        first = of()
        run = blend_runs([str(first.path)], tmp_path / "again")
        assert refused(run.path).startswith(f"{run.path}: blends {first.path}, a blend itself, which has no networks")

    def test_members_with_other_inner_slides(self, of, pair):
        run = of()
        write_table(pair[1].paths.folds, table(pair[1].paths.folds).assign(inner_0=True))
        line = refused(run.path)
        assert line.startswith(f"{run.path}: its member {pair[1].path} has other inner slides or hidden labels than")
        assert line.endswith(f"train it with --set cv.folds_file={pair[0].paths.folds}, and blend again")

    def test_a_member_without_inner_predictions(self, round_0, members, tmp_path):
        copy = shutil.copytree(members[1], tmp_path / "copy")
        run = blend_runs([str(round_0), str(copy)], tmp_path / "blend")
        path = copy / "fold-1" / "inner.parquet"
        path.unlink()
        assert refused(run.path).startswith(f"{path}: no such file, so no threshold can be chosen")

    def test_a_blend_without_inner_predictions(self, blend, tmp_path):
        copy = shutil.copytree(blend, tmp_path / "copy")
        path = copy / "fold-0" / "inner.parquet"
        path.unlink()
        assert refused(copy) == (
            f"{path}: no such file, so no threshold can be chosen; blend the same runs again into another --out"
        )

    def test_other_test_views_than_those_of_the_first_member(self, blend, tmp_path):
        copy = shutil.copytree(blend, tmp_path / "copy")
        line = refused(copy, "predict.d4=true")
        assert line.startswith(f"{copy}: rounds keep the folds and test views of round 0 (predict.d4: False -> True)")

    def test_agreement_where_a_member_has_no_neighbours(self, trained_run, tmp_path):
        copy = shutil.copytree(trained_run, tmp_path / "copy")
        text = (copy / "recipe.yaml").read_text()
        (copy / "recipe.yaml").write_text(text.replace("  use: true\n", "  use: false\n"))
        run = blend_runs([str(trained_run), str(copy)], tmp_path / "blend")
        assert refused(run.path, "pseudo.agreement=true", "train.batch_size=8") == (
            f"pseudo.agreement: {copy}, which {run.path} blends, has no kNN; blend runs with neighbours.use=true"
        )
