"""Two rounds on a tiny run: training data of each fold, files, and continuation."""

import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import added, check_same, decisions, table, verdict, weights

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.report.scores import repeat_command
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.runs.run import Run, run_in_use
from pcam_ssl.tables import DECISION_COLUMNS

FOLDS, ROUNDS = (0, 1), (1, 2)
every_round_and_fold = pytest.mark.parametrize(("number", "fold"), [(number, fold) for number in ROUNDS for fold in FOLDS])


@pytest.fixture(scope="module")
def folds(two_rounds):
    return table(two_rounds / "folds.parquet")


@pytest.fixture(scope="module")
def patches(slides):
    return open_dataset(slides).patches.set_index("id")


def test_every_round_adds_something_in_every_fold(two_rounds):
    assert all(len(added(two_rounds, number, fold)) >= 5 for number in ROUNDS for fold in FOLDS)


@every_round_and_fold
def test_each_pool_patch_has_one_decision(two_rounds, folds, patches, number, fold):
    rows = decisions(two_rounds, number, fold)
    trains = (folds.fold != fold) & ~folds[f"inner_{fold}"]
    pool = {*patches.index[patches.split == "test"], *folds.id[trains & ~folds.visible]}
    assert list(rows) == list(DECISION_COLUMNS)
    assert set(rows.id) == pool and len(rows) == len(pool)
    assert (rows.reason != "").all()
    assert set(rows.fold) == {fold}


@every_round_and_fold
def test_no_pseudo_label_lands_on_what_the_fold_is_judged_by(two_rounds, folds, patches, number, fold):
    kept = folds[(folds.fold == fold) | folds[f"inner_{fold}"]]
    chosen = added(two_rounds, number, fold).id
    assert not set(chosen) & set(kept.id)
    assert not set(patches.wsi.loc[chosen]) & set(kept.wsi)
    assert not set(chosen) & set(folds.id[folds.visible])


def test_pool_patches_of_labelled_slides_are_counted_and_printed(two_rounds_copy, folds, patches, make_rounds, capsys):
    told = make_rounds(two_rounds_copy, 2)["pool"]
    counts = []
    for fold in FOLDS:
        labelled = set(folds.wsi[(folds.fold != fold) & ~folds[f"inner_{fold}"] & folds.visible])
        counts.append(int(patches.wsi.loc[decisions(two_rounds_copy, 1, fold).id].isin(labelled).sum()))
    assert min(counts) > 0 and told["on_training_slides"] == np.mean(counts)
    sentence = f"{counts[0]} of them on slides that also have training labels"
    assert sentence in capsys.readouterr().err


@every_round_and_fold
def test_decisions_name_the_network_that_made_them(two_rounds, number, fold):
    from hashlib import sha256

    teacher = sha256(weights(two_rounds, number - 1, f"fold-{fold}")).hexdigest()
    assert set(decisions(two_rounds, number, fold).network_digest) == {teacher}


@pytest.mark.parametrize("fold", FOLDS)
def test_probs_of_the_decisions_are_those_of_the_round_before(two_rounds, fold):
    for number in ROUNDS:
        before = two_rounds / f"round-{number - 1}" if number > 1 else two_rounds
        test = table(before / f"fold-{fold}" / "test.parquet").set_index("id")
        rows = decisions(two_rounds, number, fold).set_index("id").loc[test.index]
        assert np.array_equal(rows[["logit", "prob", "view_std"]], test[["logit", "prob", "view_std"]])


@pytest.mark.parametrize("fold", FOLDS)
def test_changes_are_those_between_two_rounds(two_rounds, fold):
    before, now = (decisions(two_rounds, number, fold).set_index("id").label for number in ROUNDS)
    change = decisions(two_rounds, 2, fold).set_index("id").change
    assert set(change.index[change == "taken back"]) == set(before.index[before.notna() & now.isna()])
    assert set(change.index[change == "new"]) == set(now.index[before.isna() & now.notna()])
    same = before.notna() & now.notna()
    assert set(change.index[change == "kept"]) == set(now.index[same & (before == now)])
    assert set(change.index[change == "flipped"]) == set(now.index[same & (before != now)])


def test_something_is_taken_back_and_its_student_does_not_train_on_it(
    two_rounds, folds, make_rounds, slides, monkeypatch, tmp_path
):
    from pcam_ssl.cross_validation import fitting

    seen = {}
    whole = fitting.training_set

    def noting(context, unit):
        found = whole(context, unit)
        seen[unit.round, unit.number] = set(context.dataset.patches.set_index("row").id.loc[found.rows])
        return found

    monkeypatch.setattr(fitting, "training_set", noting)
    path = shutil.copytree(two_rounds, tmp_path / "run", ignore=shutil.ignore_patterns("round-*", "rounds.json"))
    make_rounds(path, 2)
    backs = {fold: decisions(path, 2, fold)[lambda rows: rows.change == "taken back"].id for fold in FOLDS}
    assert sum(map(len, backs.values()))
    for fold, back in backs.items():
        labelled = set(folds.id[(folds.fold != fold) & ~folds[f"inner_{fold}"] & folds.visible])
        for number in ROUNDS:
            assert seen[number, fold] == labelled | set(added(path, number, fold).id)
        assert seen[1, fold] >= set(back) and not seen[2, fold] & set(back)


def test_students_learn_from_pseudo_labels(two_rounds, fresh, make_rounds):
    make_rounds(fresh, 1, "pseudo.k_best=null", "pseudo.confidence=0.999")
    assert all(added(fresh, 1, fold).empty for fold in FOLDS)
    for fold in FOLDS:
        assert weights(fresh, 1, f"fold-{fold}") != weights(two_rounds, 1, f"fold-{fold}")


def test_rounds_leave_round_0_as_it_is(two_rounds, round_0):
    for name in ("oof.parquet", "test.parquet", "scores.json", "recipe.yaml", "folds.parquet", "fold-0/model.safetensors"):
        assert (two_rounds / name).read_bytes() == (round_0 / name).read_bytes(), name


def test_a_round_is_a_run(two_rounds, folds):
    for number in ROUNDS:
        run = Run(two_rounds / f"round-{number}")
        info = run.info()
        assert (info["command"], info["status"], info["round"]) == ("pseudo-label", "done", number)
        assert {path.name for path in run.path.iterdir()} >= {"oof.parquet", "test.parquet", "scores.json", "report.html"}
        pd.testing.assert_frame_equal(table(run.paths.folds), folds)
        assert len(table(run.path / "pseudo.parquet")) == sum(len(decisions(two_rounds, number, fold)) for fold in FOLDS)


def test_the_verdict_points_to_a_round_that_is_there(two_rounds):
    told = verdict(two_rounds)
    assert [row["number"] for row in told["rounds"]] == [0, 1, 2]
    assert told["stopped"] is None
    assert run_in_use(two_rounds).path == (two_rounds / f"round-{told['best']}" if told["best"] else two_rounds)


def test_one_round_and_then_another_equal_two_at_once(two_rounds, fresh, make_rounds):
    make_rounds(fresh, 1)
    assert len(verdict(fresh)["rounds"]) == 2
    make_rounds(fresh, 2)
    check_same(fresh, two_rounds, 2)


def test_what_is_there_is_not_done_again(two_rounds_copy, make_rounds):
    made = {path: path.stat().st_mtime_ns for path in two_rounds_copy.glob("round-*/fold-*/*")}
    before = verdict(two_rounds_copy)
    assert make_rounds(two_rounds_copy, 2)
    assert {path: path.stat().st_mtime_ns for path in two_rounds_copy.glob("round-*/fold-*/*")} == made
    assert verdict(two_rounds_copy) == before


def test_rounds_elsewhere_equal_rounds_inside(two_rounds, fresh, make_rounds, tmp_path):
    out = tmp_path / "elsewhere"
    make_rounds(fresh, 1, out=out)
    assert not (fresh / "round-1").exists()
    for fold in FOLDS:
        assert weights(out, 1, f"fold-{fold}") == weights(two_rounds, 1, f"fold-{fold}")


def test_the_command_in_its_report_repeats_a_round(two_rounds_copy, command):
    told = repeat_command(read_facts(Run(two_rounds_copy / "round-1")))
    assert command(*shlex.split(told)[1:]).code == 0
    assert weights(two_rounds_copy.with_name("run-again"), 1, "fold-0") == weights(two_rounds_copy, 1, "fold-0")


@pytest.mark.trains
def test_round_0_is_made_where_there_is_none(slides, tiny, command, selection_words, tmp_path):
    words = ["--data", slides, *(word for setting in tiny("train.epochs=1", "spatial.weight=0.5") for word in ("--set", setting))]
    made = command("pseudo-label", tmp_path / "new", "--rounds", 1, *words, *selection_words())
    assert made.code == 0, made.err
    assert f"{tmp_path / 'new'}: no run found, so round 0 is trained first" in made.err
    assert (tmp_path / "new" / "round-1" / "oof.parquet").exists()
    alone = command("baseline", "--out", tmp_path / "bare", *words)
    assert alone.code == 0
    assert weights(tmp_path / "new", 0, "fold-0") == weights(tmp_path / "bare", 0, "fold-0")
    assert [each.err.count("spatial.weight: without effect") for each in (made, alone)] == [1, 1]


def test_an_unfinished_round_0_is_finished_first(train, two_rounds, make_rounds, tmp_path):
    train(tmp_path / "run", "data.label_budget=56", "train.batch_size=8", only=[1])
    assert Run(tmp_path / "run").info()["status"] == "begun"
    make_rounds(tmp_path / "run", 1)
    assert weights(tmp_path / "run", 1, "fold-0") == weights(two_rounds, 1, "fold-0")


def test_a_finished_run_with_rounds_is_left_alone_by_its_own_command(two_rounds_copy, slides):
    before = (two_rounds_copy / "round-2" / "run.json").read_bytes()
    baseline(Run(two_rounds_copy).recipe, slides, two_rounds_copy)
    assert (two_rounds_copy / "round-2" / "run.json").read_bytes() == before


def test_the_history_has_each_round_and_fold(two_rounds, command):
    id = decisions(two_rounds, 1, 0).id.iloc[-1]
    told = command("pseudo-label", two_rounds, "--explain", id)
    assert told.code == 0
    assert told.out.startswith(f"patch {id}\n")
    assert "In round 2, the latest" in told.out


def test_a_key_without_effect_in_rounds_is_named_once(two_rounds_copy, command):
    told = command("pseudo-label", two_rounds_copy, "--rounds", 2, "--set", "graph.k=7")
    assert told.code == 0 and told.err.count("graph.k: without effect unless graph.use=true") == 1


def test_the_verdict_is_printed_as_text_and_as_json(two_rounds_copy, command):
    assert "Verdict" in command("pseudo-label", two_rounds_copy, "--rounds", 2).out
    told = command("pseudo-label", two_rounds_copy, "--rounds", 2, "--json")
    assert told.out.strip() == (two_rounds_copy / "rounds.json").read_text().strip()
