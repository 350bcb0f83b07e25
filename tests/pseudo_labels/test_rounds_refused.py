"""Bad input to `pseudo-label`: one line that says what, where and the next move, exit code 2, nothing half-written."""

import json
import shutil

import albumentations as A
import pytest

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.runs.run import Run

RERUN = "and run the same command again"


def files(folder) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and ".rounds." not in path.name}


@pytest.fixture
def refused(command, selection_words, tmp_path):
    """refused(run, "a.b=c", ..., words=[...]): the one problem that is printed; fails where a file came, went or changed."""

    def refused(run, *more, words=()) -> str:
        before = files(tmp_path)
        done = command("pseudo-label", run, *words, *selection_words(*more))
        assert done.code == 2, done.err
        assert done.out == "" and "Traceback" not in done.err
        assert files(tmp_path) == before
        (problem,) = done.problems
        return problem

    return refused


@pytest.mark.parametrize("n", [0, -1])
def test_no_rounds(refused, fresh, n):
    assert refused(fresh, words=["--rounds", n]) == f"--rounds {n}: ask for at least one round"


def test_no_unlabelled_patches(refused, train, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "labelled", lambda patches: patches[patches.label.notna()])
    run = train(tmp_path / "run", "train.epochs=1", data=data)
    assert refused(run.path) == (
        f"fold-0 of {run.path} has no unlabelled patches to learn from: import a test split or unlabelled patches, or set data.label_budget"
    )


def test_no_unlabelled_patches_are_refused_before_round_0_is_trained(refused, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "labelled", lambda patches: patches[patches.label.notna()])
    assert refused(tmp_path / "run", words=["--data", data]).startswith(f"{data}: has no unlabelled patches to learn from: ")
    assert not (tmp_path / "run").exists()


def test_a_pool_smaller_than_a_batch(refused, fresh):
    assert refused(fresh, "train.batch_size=20") == (
        f"fold-0 of {fresh} has a pool of 19 patches, fewer than a batch of 20; import more, or lower train.batch_size"
    )


@pytest.mark.parametrize(
    ("size", "told"),
    [
        (16, "train.batch_size 16 asks for 8 patches of each class, the fold trains on 5 normal ones; lower it"),
        (2, "train.batch_size is 2; labels and pseudo-labels of two classes share a batch, so set it to 4 or more"),
    ],
)
def test_labels_that_cannot_fill_the_batches_of_a_metric_student_are_refused_first(refused, fresh, size, told):
    assert refused(fresh, "method.name=metric", f"train.batch_size={size}", "pseudo.planted_share=0.3") == told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("inner.parquet", "no such file, so no threshold can be chosen; this run was made by an older pcam-ssl: train it again"),
        ("model.safetensors", "no such file; pseudo-labels need a finished run, train it to its end"),
    ],
)
def test_a_run_that_lacks_what_rounds_start_from(refused, fresh, name, words):
    path = fresh / "fold-1" / name
    path.unlink()
    assert refused(fresh, "pseudo.planted_share=0.3") == f"{path}: {words}"


def test_a_run_without_calibration(refused, fresh):
    (fresh / "fold-1" / "model.json").unlink()
    assert refused(fresh, "pseudo.planted_share=0.3") == (
        f"{fresh / 'fold-1'}: holds no calibration (model.json is absent); train that unit to its end first"
    )


def test_another_dataset(refused, fresh, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "other", lambda patches: patches.iloc[:-1])
    problem = refused(fresh, words=["--data", data])
    assert problem.startswith(f"{fresh}: trained on dataset {slides} ({open_dataset(slides).digest[:12]}), {data} is ")
    assert problem.endswith("name that dataset with --data, or train a run on this one")


def test_a_dataset_that_moved_is_named_and_taken(fresh, slides, make_rounds, tmp_path):
    info = json.loads((fresh / "run.json").read_text())
    (fresh / "run.json").write_text(json.dumps({**info, "dataset": str(tmp_path / "gone")}))
    assert len(make_rounds(fresh, 1, data=slides)["rounds"]) == 2


def test_a_run_that_is_a_round_itself(refused, two_rounds_copy):
    from pathlib import Path

    owner = json.loads((two_rounds_copy / "round-1" / "run.json").read_text())["round_0"]
    assert refused(two_rounds_copy / "round-1") == (
        f"{two_rounds_copy / 'round-1'}: is a pseudo-label round; name the run it belongs to ({Path(owner)})"
    )


def test_a_consistency_run(refused, train, tmp_path):
    run = train(tmp_path / "run", "method.name=fixmatch", "train.epochs=1")
    assert refused(run.path) == (
        f"{run.path}: method fixmatch learns from the pool already; start rounds from a supervised or metric run"
    )


def test_a_consistency_recipe_is_refused_before_round_0_is_trained(refused, slides, tmp_path):
    problem = refused(tmp_path / "run", words=["--data", slides, "--recipe", "fixmatch"])
    assert problem.startswith(f"{tmp_path / 'run'}: method fixmatch learns from the pool already")
    assert not (tmp_path / "run").exists()


def test_other_folds_than_those_of_round_0(refused, fresh):
    problem = refused(fresh, "cv.inner_share=0.2")
    assert problem == (
        f"{fresh}: rounds keep the folds and test views of round 0 (cv.inner_share: 0.3 -> 0.2); train another run with those keys"
    )


def test_another_policy_of_views_where_test_views_are_drawn_from_it(refused, train, tmp_path):
    run = train(tmp_path / "run", "predict.random_views=1", "train.epochs=1")
    assert "(views.policy: standard -> d4)" in refused(run.path, "views.policy=d4")
    A.save(A.InvertImg(p=1), own := tmp_path / "own.json")
    assert "views.transform.transform.p: None -> 1" in refused(run.path, f"views.file={own}")


def test_agreement_without_neighbours(refused, fresh):
    assert refused(fresh, "pseudo.agreement=true") == (
        f"pseudo.agreement: {fresh} has no kNN; train a run with neighbours.use=true, or with `pcam-ssl metric-train`"
    )


def test_a_selection_by_nothing(refused, fresh):
    assert refused(fresh, "pseudo.k_best=null").startswith("pseudo: no selector decides which patches are confident; set ")


def test_rounds_in_the_folder_of_another_run(refused, fresh, round_0, tmp_path):
    other = shutil.copytree(round_0, tmp_path / "other")
    assert refused(fresh, words=["--out", other]) == (
        f"{other}: holds another run, and these rounds start from {fresh}; choose another --out"
    )


def test_a_folder_that_is_no_run(refused, slides, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    problem = refused(tmp_path / "notes", words=["--data", slides])
    assert problem == f"{tmp_path / 'notes'}: holds something that is no run; choose another --out"


@pytest.mark.parametrize("name", ["pseudo.parquet", "selection.json"])
def test_truncated_decisions(refused, two_rounds_copy, name):
    path = two_rounds_copy / "round-1" / "fold-1" / name
    path.write_bytes(path.read_bytes()[:40])
    problem = refused(two_rounds_copy, words=["--rounds", 2])
    what = "missing or damaged, and students may have learned from it"
    assert problem == f"{path}: {what}; delete {two_rounds_copy / 'round-1'} and later rounds, {RERUN}"


def test_a_run_json_cut_short(refused, two_rounds_copy):
    path = two_rounds_copy / "round-1" / "run.json"
    path.write_text(path.read_text()[:40])
    problem = refused(two_rounds_copy, words=["--rounds", 2])
    assert problem.startswith(f"{path}: damaged (") and problem.endswith("the command that made it makes it again")


def test_an_empty_folder_of_a_round_is_filled(fresh, two_rounds, make_rounds):
    (fresh / "round-1").mkdir()
    make_rounds(fresh, 1)
    assert (fresh / "round-1" / "fold-1" / "model.safetensors").read_bytes() == (
        two_rounds / "round-1" / "fold-1" / "model.safetensors"
    ).read_bytes()


def test_a_teacher_that_was_trained_again_since(refused, two_rounds_copy, train):
    other = two_rounds_copy / "round-1" / "fold-0" / "model.safetensors"
    other.write_bytes((two_rounds_copy / "fold-0" / "model.safetensors").read_bytes())
    problem = refused(two_rounds_copy, words=["--rounds", 2])
    assert problem.startswith(f"{two_rounds_copy / 'round-2' / 'fold-0' / 'pseudo.parquet'}: made by network ")
    assert problem.endswith(f"delete {two_rounds_copy / 'round-2'} and later rounds, or choose another --out")


def test_an_id_that_is_in_no_pool(command, two_rounds):
    done = command("pseudo-label", two_rounds, "--explain", "nobody")
    assert done.code == 2 and done.problems[0].startswith("--explain nobody: no such patch in the pool")


def test_a_history_without_rounds(command, fresh):
    done = command("pseudo-label", fresh, "--explain", "nobody")
    assert done.problems == ["--explain: no round has been made yet; run `pcam-ssl pseudo-label` with --rounds first"]


def test_students_may_not_start_from_a_network_that_saw_the_slides_they_score(refused, fresh):
    problem = refused(fresh, f"model.weights={fresh / 'fold-0' / 'model.safetensors'}")
    assert problem.startswith(f"model.weights: {fresh}/fold-0/model.safetensors learned from labels of this dataset")
    assert f"set model.init={fresh} " in problem


def test_students_start_from_the_published_weights_of_round_0(refused, fresh, monkeypatch):
    Run(fresh).update(published_weights="hub")
    monkeypatch.setattr("pcam_ssl.cross_validation.checks.published_from", lambda recipe: "a package")
    problem = refused(fresh)
    assert problem.startswith(f"{fresh}: begun with weights of test_resnet from hub, here they would come from a package;")


def test_students_of_another_network_cannot_start_from_their_teacher(refused, fresh):
    assert refused(fresh, "pseudo.start=teacher", "model.drop_rate=0.5") == (
        f"pseudo.start=teacher: students have another network than {fresh} (sections model and method); leave out what changes them"
    )


def test_an_opinion_that_round_0_has_not(refused, fresh):
    assert refused(fresh, "pseudo.opinions=head+graph") == (
        f"pseudo.opinions=head+graph: {fresh} has no label propagation; train a run with graph.use=true"
    )
