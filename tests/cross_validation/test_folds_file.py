"""What a run on the folds of another learns from: what its own recipe says, or nothing is begun."""

import numpy as np
import pytest

from pcam_ssl.cross_validation.cross_validate import folds_of as made_folds
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import labelled_rows, read_folds, refit_unit, write_folds
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.data.splits import make_folds
from pcam_ssl.errors import UserError


@pytest.fixture(scope="module")
def dataset(slides):
    return open_dataset(slides)


@pytest.fixture
def folds_file(dataset, tmp_path):
    """folds_file(scheme="official", ...): the folds.parquet of a run with inner_share 0.3 and, unless said otherwise, 2 folds."""

    def folds_file(**options):
        path = tmp_path / "folds.parquet"
        write_folds(make_folds(dataset.patches, **{"n_folds": 2, "inner_share": 0.3, **options}), path)
        return path

    return folds_file


@pytest.fixture
def folds_of(tiny_recipe, dataset):
    """folds_of(path, "a.b=c", ...): the folds of a run under a tiny recipe that names this file."""
    return lambda path, *more: made_folds(tiny_recipe(f"cv.folds_file={path}", *more), dataset)


def test_the_budget_of_the_recipe_holds_on_the_folds_of_a_file(folds_file, folds_of, dataset):
    path = folds_file()
    folds, there = folds_of(path, "data.label_budget=40"), read_folds(path, dataset.patches)
    assert folds.frame.visible.sum() == folds.label_budget == 40
    assert folds.frame.fold.equals(there.frame.fold)
    assert [folds.frame[name].tolist() for name in ("inner_0", "inner_1")] == [
        there.frame[name].tolist() for name in ("inner_0", "inner_1")
    ]


def test_the_budget_on_the_folds_of_a_file_is_drawn_by_the_seed_that_holds_folds(folds_file, folds_of):
    path = folds_file()
    one, held, other = (
        folds_of(path, "data.label_budget=40", *more).frame.visible.tolist()
        for more in (("seed=1",), ("seed=2", "cv.seed=1"), ("seed=2",))
    )
    assert one == held != other


def test_labels_hidden_in_the_file_stay_hidden_whatever_the_seed(folds_file, folds_of, dataset):
    path = folds_file(label_budget=40)
    folds = folds_of(path, "data.label_budget=40", "seed=7")
    assert folds.frame.equals(read_folds(path, dataset.patches).frame)


@pytest.mark.parametrize(
    ("made", "settings", "fix"),
    [
        ({"label_budget": 40}, [], "--set data.label_budget=40"),
        ({"label_budget": 40}, ["data.label_budget=50"], "--set data.label_budget=40"),
        ({"n_folds": 3}, [], "--set cv.folds=3"),
        ({"inner_share": 0.2}, [], "--set cv.inner_share=0.2"),
        ({"scheme": "official"}, [], "--set cv.scheme=official"),
        ({"scheme": "random"}, [], "--set cv.scheme=random"),
        ({}, ["cv.scheme=official"], "--set cv.scheme=grouped"),
        ({"n_folds": 3, "label_budget": 40}, [], "--set cv.folds=3 --set data.label_budget=40"),
    ],
)
def test_a_file_of_other_folds_than_the_recipe_asks_for_is_refused(folds_file, folds_of, made, settings, fix):
    path = folds_file(**made)
    with pytest.raises(UserError) as caught:
        folds_of(path, *settings)
    (problem,) = caught.value.problems
    assert problem.startswith(f"cv.folds_file {path}: made for another recipe (")
    assert f"; add {fix}, or name another file" in problem


def test_a_run_with_a_file_of_other_folds_leaves_nothing(train, folds_file, tmp_path):
    path = folds_file(label_budget=40)
    with pytest.raises(UserError, match=r"data\.label_budget is 40 in the file, null in the recipe"):
        train(tmp_path / "run", f"cv.folds_file={path}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("budget", [None, 40])
def test_the_refit_learns_from_no_label_of_valid_under_the_official_scheme(dataset, budget):
    folds = make_folds(dataset.patches, scheme="official", inner_share=0.3, label_budget=budget)
    valid = (labelled_rows(dataset.patches).split == "valid").to_numpy()
    unit = refit_unit(folds)
    assert valid.any()
    assert not (unit.train | unit.inner)[valid].any()
    assert (unit.train | unit.inner).sum() == (budget or (~valid).sum())
    assert not set(pool_rows(dataset, folds, unit).split) & {"valid"}


@pytest.mark.parametrize("budget", [None, 40])
def test_the_refit_learns_from_every_label_that_the_budget_shows_under_the_others(dataset, budget):
    folds = make_folds(dataset.patches, n_folds=2, inner_share=0.3, label_budget=budget)
    unit = refit_unit(folds)
    assert np.array_equal(unit.train | unit.inner, folds.frame.visible)
