"""A blend is a run: a blend of one run equals that run, its tables agree, and what cannot be blended is refused."""

import json

import numpy as np
import pandas as pd
import pytest
import scored
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from pcam_ssl.blending.blend import blend_runs
from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.errors import UserError
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import PREDICTION_COLUMNS, read_table, write_table

METHODS = ["mean", "rank-mean", "logit-mean", "weights", "greedy"]


@pytest.fixture
def members(tmp_path):
    """Three runs of falling skill."""
    return [scored.write_scored(tmp_path / name, seed=seed, skill=4 - seed) for seed, name in enumerate("abc", 1)]


def blended(runs, out, *options) -> Run:
    return blend_runs([str(run.path) for run in runs], out, *options)


def table_of(run: Run, name: str = "oof") -> pd.DataFrame:
    return read_table(run.path / f"{name}.parquet")[0]


def problem(runs, out, *options) -> str:
    with pytest.raises(UserError) as refused:
        blended(runs, out, *options)
    assert not out.exists() or out.is_file() or not (out / "scores.json").exists()
    (line,) = refused.value.problems
    return line


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("times", [1, 3])
def test_blending_one_run_with_itself_changes_nothing(members, tmp_path, method, times):
    run = blended(members[:1] * times, tmp_path / "out", method)
    for name in ("oof", "test"):
        ours, theirs = table_of(run, name), table_of(members[0], name)
        pd.testing.assert_frame_equal(ours, theirs, rtol=0, atol=1e-9)


def test_the_mean_is_the_mean_of_calibrated_probs(members, tmp_path):
    run = blended(members, tmp_path / "out")
    wanted = np.mean([table_of(member).prob for member in members], axis=0)
    assert table_of(run).prob.to_numpy() == pytest.approx(wanted, abs=1e-12)


def test_the_blends_scores_are_scikit_learns(members, tmp_path):
    run = blended(members, tmp_path / "out", "logit-mean")
    mean = expit(np.mean([scored.drawn(seed, 4 - seed) for seed in (1, 2, 3)], axis=0) / 2)
    found = json.loads(run.paths.scores.read_text())["out_of_fold"]["scores"]["auroc"]["value"]
    assert found == pytest.approx(roc_auc_score(scored.LABELS, mean))


def test_nested_weights_score_the_folds_and_final_ones_the_test_split(tmp_path):
    peers = [scored.write_scored(tmp_path / name, seed=seed) for seed, name in ((1, "a"), (2, "b"))]
    run = blended(peers, tmp_path / "out", "weights")
    described = run.info()["blend"]
    assert described["nested"]["0"] != described["nested"]["1"]
    logits = np.stack([scored.drawn(seed) / 2 for seed in (1, 2)], axis=1)
    nested = np.array([described["nested"][str(k)] for k in scored.FOLD])
    assert table_of(run).prob.to_numpy() == pytest.approx(expit((logits * nested).sum(axis=1)), abs=1e-9)
    tests = np.stack([table_of(peer, "test").logit for peer in peers], axis=1)
    final = [member["weight"] for member in described["members"]]
    assert table_of(run, "test").logit.to_numpy() == pytest.approx(tests @ final, abs=1e-9)


def test_scrambled_labels_of_a_fold_do_not_change_its_blended_predictions(tmp_path):
    def run(name, labels):
        pair = [
            scored.write_scored(tmp_path / name / each, scored.drawn(seed, 2), labels=labels) for seed, each in ((1, "a"), (2, "b"))
        ]
        return table_of(blended(pair, tmp_path / name / "out", "weights"))

    before = run("before", scored.LABELS)
    after = run("after", np.where(scored.FOLD == 1, 1 - scored.LABELS, scored.LABELS))
    same = before.prob == after.prob
    assert same[scored.FOLD == 1].all() and not same[scored.FOLD == 0].any()


def test_a_blend_is_a_run_that_can_be_blended_and_compared_again(members, tmp_path):
    first = blended(members[:2], tmp_path / "first", "rank-mean")
    second = blended([first, members[2]], tmp_path / "second")
    found = compare_runs([str(members[0].path), str(first.path), str(second.path)])
    assert [run["network"] for run in found["runs"][1:]] == ["rank-mean of 2", "mean of 2"]
    assert list(table_of(second).columns) == list(PREDICTION_COLUMNS)


def test_members_of_weight_zero_are_left_out_and_printed(members, tmp_path, capsys):
    harmful = scored.write_scored(tmp_path / "harmful", -3 * scored.drawn(9, 2))
    run = blended([members[0], harmful], tmp_path / "out", "weights")
    assert [member["weight"] for member in run.info()["blend"]["members"]] == [1, 0]
    assert "harmful: weight 0" in capsys.readouterr().err


def hide(run: Run, hidden: np.ndarray) -> None:
    """Hide labels from a run, as its label budget would."""
    path = run.path / "folds.parquet"
    write_table(path, read_table(path)[0].assign(visible=~hidden))


def test_a_label_hidden_from_any_member_is_hidden_from_the_blend(tmp_path):
    hidden = np.arange(scored.N) % 5 == 0

    def run(name, labels):
        pair = [scored.write_scored(tmp_path / name / each, seed=seed, labels=labels) for seed, each in ((1, "a"), (2, "b"))]
        hide(pair[1], hidden)
        return blended(pair, tmp_path / name / "out", "weights")

    runs = [run("before", scored.LABELS), run("after", np.where(hidden, 1 - scored.LABELS, scored.LABELS))]
    before, after = (each.info()["blend"] for each in runs)
    assert table_of(runs[0], "folds").visible.tolist() == (~hidden).tolist()
    assert [member["weight"] for member in before["members"]] == [member["weight"] for member in after["members"]]
    assert before["nested"] == after["nested"]


def keep_inner(run: Run) -> None:
    """Inner Predictions of each fold: what the run says of the other."""
    oof = table_of(run)
    for k in (0, 1):
        write_table(run.fold(k) / "inner.parquet", oof[oof.fold != k].assign(fold=k).astype({"fold": "Int8"}))


@pytest.mark.parametrize(
    ("options", "kept"), [(("mean",), True), (("mean", 0.99), False), (("weights",), False), (("rank-mean",), False)]
)
def test_inner_slides_are_kept_only_where_no_label_weighed_the_members(members, tmp_path, options, kept):
    for run in members:
        keep_inner(run)
    run = blended(members, tmp_path / "out", *options)
    assert [(run.fold(k) / "inner.parquet").exists() for k in (0, 1)] == [kept, kept]


def test_held_out_scores_are_those_of_the_mean_over_folds(tmp_path):
    pair = [scored.write_scored(tmp_path / name, seed=seed, skill=1, test_labels=True) for seed, name in ((1, "a"), (2, "b"))]
    run = blended(pair, tmp_path / "out")
    mean = table_of(run, "test")[lambda table: table.fold == -1]
    found = json.loads(run.paths.scores.read_text())["held_out"]["test"]["scores"]["auroc"]["value"]
    assert found == pytest.approx(roc_auc_score(mean.label.astype(int), mean.prob))


def test_the_cap_drops_the_worse_of_two_alike_and_is_recorded(members, tmp_path):
    alike = scored.write_scored(tmp_path / "alike", scored.drawn(1, 3) + 0.01 * np.random.default_rng(0).normal(size=scored.N))
    run = blended([alike, members[0], members[1]], tmp_path / "out", "mean", 0.95)
    weights = [member["weight"] for member in run.info()["blend"]["members"]]
    assert sorted(weights[:2]) == [0, 0.5] and weights[2] == 0.5
    assert run.info()["blend"]["max_correlation"] == 0.95


def test_a_constant_member_is_a_warning_and_ranks_nothing(members, tmp_path, capsys):
    flat = scored.write_scored(tmp_path / "flat", np.zeros(scored.N))
    run = blended([members[0], flat], tmp_path / "out", "rank-mean")
    assert "flat: its predictions are constant" in capsys.readouterr().err
    order = table_of(run).prob.rank(), table_of(members[0]).prob.rank()
    assert np.corrcoef(*order)[0, 1] > 0.999


def test_the_same_members_again_leave_the_blend_as_it_is(members, tmp_path, capsys):
    run = blended(members, tmp_path / "out")
    before = run.paths.provenance.stat().st_mtime_ns
    blended(members, tmp_path / "out")
    assert run.paths.provenance.stat().st_mtime_ns == before
    assert "already a blend of the same members" in capsys.readouterr().err


def test_other_members_are_refused_in_the_same_folder(members, tmp_path):
    blended(members, tmp_path / "out")
    with pytest.raises(UserError, match="a blend of other members, or by another method"):
        blended(members[:2], tmp_path / "out")


def test_a_run_of_another_command_is_not_written_over(members):
    with pytest.raises(UserError, match="a run of `pcam-ssl baseline`, not a blend"):
        blended(members[:2], members[2].path)


def test_a_folder_with_other_things_is_not_written_into(members, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    assert "holds something that is no run" in problem(members, tmp_path / "out")


def test_a_file_above_the_folder_is_refused(members, tmp_path):
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    assert problem(members, out) == f"--out {out}: {tmp_path / 'file'} is a file, so no folder; choose another place"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("weight",), "--method weight: choose mean, logit-mean, rank-mean, weights, greedy. Did you mean weights?"),
        (("mean", 0.0), "--max-correlation 0: choose a number above 0 and at most 1"),
        (("mean", 1.5), "--max-correlation 1.5: choose a number above 0 and at most 1"),
    ],
)
def test_options_that_cannot_be(members, tmp_path, options, said):
    assert problem(members, tmp_path / "out", *options) == said


def test_other_ids_are_refused_with_the_counts(members, tmp_path):
    path = members[1].path / "oof.parquet"
    write_table(path, read_table(path)[0].iloc[5:])
    assert "scores 115 patches" in problem(members, tmp_path / "out") and not (tmp_path / "out").exists()


def test_other_test_patches_are_refused_with_the_counts(members, tmp_path):
    path = members[1].path / "test.parquet"
    table = read_table(path)[0]
    write_table(path, table[table.id != "t7"])
    said = problem(members, tmp_path / "out")
    assert said.startswith("b: its test table holds 117 rows, that of a 120: 3 missing, 0 extra, first t7;")
    assert not (tmp_path / "out").exists()


def test_without_test_predictions_of_all_members_there_is_no_test_table(members, tmp_path, capsys):
    (members[1].path / "test.parquet").unlink()
    run = blended(members, tmp_path / "out")
    assert not (run.path / "test.parquet").exists()
    assert "no test.parquet is written: b predicted no test split" in capsys.readouterr().err


def test_without_inner_predictions_of_all_members_there_are_none(members, tmp_path, capsys):
    run = blended(members, tmp_path / "out")
    assert not list(run.path.glob("fold-*"))
    assert "no inner.parquet is written" in capsys.readouterr().err


def test_a_mark_of_one_member_marks_the_blend(members, tmp_path):
    marked = scored.write_scored(tmp_path / "marked", marks={"selected_on_fold": True})
    run = blended([members[0], marked], tmp_path / "out")
    assert json.loads(run.paths.scores.read_text())["selected_on_fold"] is True


def test_a_kill_while_writing_leaves_no_run(members, tmp_path, monkeypatch):
    import pcam_ssl.blending.blend as module

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "score_blend", killed)
    with pytest.raises(KeyboardInterrupt):
        blended(members, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
