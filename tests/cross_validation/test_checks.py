"""Errors and warnings before any training."""

import numpy as np
import pytest

from pcam_ssl.cross_validation.checks import check_dataset, selected_on_fold, submission_problem
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.recipe.schema import Recipe


@pytest.fixture
def dataset(tmp_path):
    """dataset(labels, copies={2: 0}, sample=[...]): patches p0, p1, ... of which some are copies, and test patches t0, t1."""

    def dataset(labels, copies=None, sample=None, test=True):
        pixels = np.random.default_rng(0).integers(0, 256, (len(labels) + 2, 16, 16, 3), dtype=np.uint8)
        for row, original in (copies or {}).items():
            pixels[row] = pixels[original]
        with DatasetWriter(tmp_path / "set", 16, source="here", source_format="test") as writer:
            writer.append(pixels[: len(labels)], [f"p{n}" for n in range(len(labels))], "train", labels=labels, wsi="a")
            if test:
                writer.append(pixels[len(labels) :], ["t0", "t1"], "test")
            writer.sample_submission = sample
        return open_dataset(tmp_path / "set")

    return dataset


def test_exact_duplicates_with_conflicting_labels_are_refused(dataset):
    with pytest.raises(UserError) as caught:
        check_dataset(Recipe(), dataset([0, 1, 1], copies={2: 0}))
    (problem,) = caught.value.problems
    assert "2 labelled patches" in problem and "first p0; `pcam-ssl data audit`" in problem
    assert problem.endswith("set data.allow_conflicts=true")


def test_conflicts_may_be_allowed(dataset):
    check_dataset(load_recipe(None, ["data.allow_conflicts=true"]), dataset([0, 1, 1], copies={2: 0}))


def test_duplicates_that_agree_are_no_conflict(dataset):
    check_dataset(Recipe(), dataset([0, 1, 0], copies={2: 0}))


def test_a_copy_without_label_is_no_conflict(dataset):
    check_dataset(Recipe(), dataset([0, 1], copies={2: 0}))


def test_a_missing_test_split_is_a_warning(dataset, capsys):
    check_dataset(Recipe(), dataset([0, 1], test=False))
    assert "there is no test split, so no test.parquet and no submission.csv will be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sample", "missing", "extra", "first"),
    [(["t0"], 0, 1, "t1"), (["t0", "t1", "x"], 1, 0, "x")],
)
def test_a_sample_submission_must_hold_the_test_ids(dataset, sample, missing, extra, first):
    problem = submission_problem(dataset([0, 1], sample=sample))
    assert problem.startswith(f"{missing} ids of sample_submission.csv") and f" {extra} test ids " in problem
    assert problem.endswith(f"first {first}")


@pytest.mark.parametrize("sample", [None, ["t1", "t0"]])
def test_the_test_ids_in_any_order_are_a_sample_submission(dataset, sample):
    assert submission_problem(dataset([0, 1], sample=sample)) is None


def test_a_sample_submission_with_other_ids_is_a_warning(dataset, capsys):
    check_dataset(Recipe(), dataset([0, 1], sample=["t0"]))
    assert "first t1; no submission.csv will be written" in capsys.readouterr().err


@pytest.mark.parametrize(("choose", "selected"), [("last", False), ("inner", False), ("fold", True)])
def test_only_choosing_on_the_fold_is_marked(choose, selected):
    assert selected_on_fold(load_recipe(None, [f"train.choose={choose}"])) is selected
