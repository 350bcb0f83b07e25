"""Runs side by side: what may be compared, and that the numbers are those of scikit-learn and of the paired bootstrap."""

import json

import numpy as np
import pytest
import scored
from scipy.special import expit
from sklearn.metrics import average_precision_score, balanced_accuracy_score, brier_score_loss, log_loss, roc_auc_score

from pcam_ssl.compare.compare import compare_runs, parameters, write_page
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.tables import read_table, write_table


@pytest.fixture
def pair(tmp_path):
    """Two runs, the second better, both with a labelled test split."""
    return [scored.write_scored(tmp_path / name, seed=seed, skill=seed, test_labels=True) for name, seed in (("a", 1), ("b", 3))]


def compared(*runs):
    return compare_runs([str(run.path) for run in runs])


def problem(*specs) -> str:
    with pytest.raises(UserError) as refused:
        compare_runs([str(spec) for spec in specs])
    (line,) = refused.value.problems
    return line


def edit_table(path, change):
    table, notes = read_table(path)
    write_table(path, change(table), notes)


def test_scores_are_those_of_scikit_learn(pair):
    probs = expit(scored.drawn(3, 3) / 2)
    found = {name: score["value"] for name, score in compared(*pair)["runs"][1]["scores"].items()}
    for name, score in [("auroc", roc_auc_score), ("average_precision", average_precision_score), ("nll", log_loss)]:
        assert found[name] == pytest.approx(score(scored.LABELS, probs), rel=1e-12), name
    assert found["brier"] == pytest.approx(brier_score_loss(scored.LABELS, probs))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(scored.LABELS, probs >= 0.5))


def test_differences_are_paired_clustered_by_slide_and_to_the_first(pair):
    first, second = compared(*pair)["runs"]
    a, b = (read_table(run.path / "oof.parquet")[0] for run in pair)
    wanted = paired_differences(scored.LABELS, a.prob, b.prob, scored.WSI, 100)
    assert first["against_first"] is None
    assert second["against_first"] == {name: pytest.approx(score) for name, score in wanted.items()}


def test_the_order_of_rows_in_a_file_changes_nothing(pair):
    before = compared(*pair)
    edit_table(pair[1].path / "oof.parquet", lambda table: table.iloc[::-1])
    assert compared(*pair) == before


def test_correlations_are_of_calibrated_logits(pair):
    found = np.array(compared(*pair)["correlation"]["pearson"])
    wanted = np.corrcoef(scored.drawn(1, 1), scored.drawn(3, 3))
    assert found == pytest.approx(wanted)


def test_held_out_scores_stand_beside_those_out_of_fold(pair):
    run = compared(*pair)["runs"][0]
    assert run["held_out"] == {"test": json.loads(pair[0].paths.scores.read_text())["held_out"]["test"]["scores"]["auroc"]}


def test_learning_curves_are_means_over_folds(pair):
    learning = compared(*pair)["runs"][0]["learning"]
    assert learning == {"watched": "inner", "epochs": [1, 2], "auroc": [0.7, 0.8], "train_loss": [1.5, 1.0]}


def test_costs_are_epochs_patches_per_second_and_device(pair):
    run = compared(*pair)["runs"][0]
    # 5 steps of 64 patches in 2 s; the folds kept epochs 2 and 1 of 10.
    assert (run["patches_per_s"], run["epochs"], run["kept"], run["device"]) == (160.0, 10, [1, 2], "cpu")


def test_parameters_are_those_of_the_network(finished):
    from pcam_ssl.models.network import build_network

    network = build_network("test_resnet", False, 32)
    assert parameters(finished) == sum(parameter.numel() for parameter in network.parameters())


def test_a_run_without_history_or_networks_is_compared_all_the_same(pair):
    for k in (0, 1):
        (pair[1].fold(k) / "metrics.jsonl").unlink()
    run = compared(*pair)["runs"][1]
    assert (run["learning"], run["patches_per_s"], run["parameters"]) == (None, None, None)


def test_a_constant_run_is_said_to_rank_nothing_and_correlates_with_none(tmp_path, pair):
    found = compared(pair[0], scored.write_scored(tmp_path / "flat", np.zeros(scored.N)))
    assert found["runs"][1]["marks"] == ["all patches have one prob: it ranks nothing"]
    assert found["correlation"]["spearman"][0][1] is None
    assert found["runs"][1]["scores"]["auroc"]["value"] == 0.5


def test_one_class_in_all_patches_leaves_auroc_absent(tmp_path):
    runs = [scored.write_scored(tmp_path / name, seed=1, labels=np.zeros(scored.N, int)) for name in "ab"]
    second = compared(*runs)["runs"][1]
    assert second["scores"]["auroc"]["value"] is None
    assert second["against_first"]["auroc"]["value"] is None


def test_a_slide_of_one_class_is_no_obstacle(tmp_path):
    labels = np.where(scored.WSI == "slide-3", 0, scored.LABELS)
    runs = [scored.write_scored(tmp_path / name, seed=seed, labels=labels) for name, seed in (("a", 1), ("b", 2))]
    assert compared(*runs)["runs"][1]["against_first"]["auroc"]["low"] is not None


def test_runs_are_named_by_the_ends_of_their_paths_that_differ(tmp_path):
    runs = [scored.write_scored(tmp_path / where, seed=1) for where in ("x/run", "y/run", "other")]
    assert [run["name"] for run in compared(*runs, runs[2])["runs"]] == ["x/run", "y/run", "other #1", "other #2"]


def test_one_run_is_no_comparison(pair):
    assert problem(pair[0].path) == "compare: 1 run named; name two or more"


def test_another_dataset_is_refused(tmp_path, pair):
    other = scored.write_scored(tmp_path / "c", dataset="e")
    assert problem(pair[0].path, other.path).startswith(f"{other.path}: made on dataset /data/e (eeeeeeeeeeee), ")


def test_other_folds_are_refused_with_how_many_ids_and_the_first(tmp_path, pair):
    fold = np.where(scored.WSI == "slide-1", 0, scored.FOLD)
    other = scored.write_scored(tmp_path / "c", fold=fold)
    said = problem(pair[0].path, other.path)
    assert f"15 of {scored.N} ids are in another fold or group, first {scored.IDS[15]}, than in" in said
    assert f"--set cv.folds_file={pair[0].path}/folds.parquet" in said


def test_missing_and_extra_ids_are_refused_with_counts(pair):
    edit_table(pair[1].path / "oof.parquet", lambda table: table.iloc[3:].replace({"id": {scored.IDS[9]: "stranger"}}))
    assert f"scores 117 patches, {pair[0].path} 120: 4 missing, 1 extra, first {scored.IDS[0]}" in problem(
        pair[0].path, pair[1].path
    )


def test_scores_that_are_not_finite_are_refused(pair):
    edit_table(pair[1].path / "oof.parquet", lambda table: table.assign(logit=table.logit.mask(table.id == scored.IDS[2])))
    assert f"oof.parquet: 1 scores are not finite, first at id {scored.IDS[2]}" in problem(pair[0].path, pair[1].path)


def test_every_run_that_cannot_be_compared_has_its_line(tmp_path, pair):
    other = scored.write_scored(tmp_path / "c", dataset="e")
    with pytest.raises(UserError) as refused:
        compare_runs([str(pair[0].path), str(other.path), str(tmp_path / "nowhere")])
    assert [line.partition(":")[0] for line in refused.value.problems] == [str(other.path), str(tmp_path / "nowhere")]


def test_an_unfinished_run_is_refused(pair):
    pair[1].paths.scores.unlink()
    assert "not finished yet" in problem(pair[0].path, pair[1].path)


def test_withheld_scores_are_not_compared(tmp_path, pair):
    pooled = scored.write_scored(tmp_path / "pooled", marks={"withheld": "pooled", "out_of_fold": None})
    assert problem(pair[0].path, pooled.path).startswith(f"{pooled.path}: its out-of-fold scores are withheld")


def test_a_table_that_a_run_has_not_is_refused(pair):
    said = problem(pair[0].path, f"{pair[1].path}:knn")
    assert said.startswith(f"{pair[1].path}:knn: oof-knn.parquet is not in the run; train with neighbours.use=true")


def test_neighbours_of_a_run_are_compared_as_a_run(trained_run):
    found = compare_runs([str(trained_run), f"{trained_run}:knn"])
    table = read_table(trained_run / "oof-knn.parquet")[0]
    assert found["runs"][1]["name"].endswith(":knn")
    assert found["runs"][1]["scores"]["auroc"]["value"] == pytest.approx(roc_auc_score(table.label.astype(int), table.prob))


def test_a_page_that_cannot_be_written_is_said(pair, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_page(tmp_path / "file" / "page.html", compared(*pair))
