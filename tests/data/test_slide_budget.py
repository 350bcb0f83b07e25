"""`data.slide_budget`: labels of some slides stay visible, drawn without looking at labels, and a larger budget keeps those of a smaller one."""

import numpy as np
import pandas as pd
import pytest
from patches_of_slides import join, make_patches

from pcam_ssl.data.folds import read_folds, write_folds
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.data.splits import make_folds, with_budget
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import load_recipe, recipe_digest


@pytest.fixture(scope="module")
def patches() -> pd.DataFrame:
    return make_patches([20] * 12)


def shown_slides(folds) -> set[str]:
    return set(folds.frame.group[folds.frame.visible])


def test_whole_slides_stay_visible(patches):
    folds = make_folds(patches, n_folds=3, slide_budget=7)
    assert len(shown_slides(folds)) == folds.slide_budget == 7
    assert (folds.frame.groupby("group").visible.nunique() == 1).all()


def test_labels_do_not_choose_the_slides(patches):
    turned = patches.assign(label=1 - patches.label)
    first, second = (make_folds(each, n_folds=3, slide_budget=7) for each in (patches, turned))
    assert shown_slides(first) == shown_slides(second)


def test_a_larger_budget_keeps_the_slides_of_a_smaller_one_and_another_seed_others(patches):
    folds = make_folds(patches, n_folds=3)
    drawn = [shown_slides(with_budget(folds, patches, None, 0, slides)) for slides in (6, 8, 10)]
    assert drawn[0] < drawn[1] < drawn[2]
    assert shown_slides(with_budget(folds, patches, None, 1, 8)) != drawn[1]


def test_official_budgets_count_slides_of_train():
    patches = join(make_patches([20] * 8), make_patches([20] * 3, split="valid", seed=1))
    folds = make_folds(patches, scheme="official", slide_budget=5)
    assert folds.frame.visible[folds.score_mask(0)].all()
    assert folds.frame.group[(folds.train_mask(0) | folds.inner_mask(0))].nunique() == folds.slide_budget == 5


def test_stain_clusters_stand_in_for_unknown_slides(patches):
    folds = make_folds(patches.assign(wsi=None), n_folds=3, slide_budget=8)
    assert folds.grouping == "stain clusters" and len(shown_slides(folds)) == 8


def test_folds_in_a_file_know_their_budget_of_slides(patches, tmp_path):
    write_folds(make_folds(patches, n_folds=3, slide_budget=7), tmp_path / "folds.parquet")
    assert read_folds(tmp_path / "folds.parquet", patches).slide_budget == 7
    assert make_folds(patches, n_folds=3, label_budget=100).slide_budget is None
    assert make_folds(patches, n_folds=3).slide_budget is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"slide_budget": 13}, "data.slide_budget is 13, but there are 12 slides to train on; ask for 2 to that many"),
        ({"slide_budget": 1}, "data.slide_budget is 1, but there are 12 slides"),
        ({"slide_budget": 6, "scheme": "random"}, "data.slide_budget: cv.scheme random splits slides; use cv.scheme grouped"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(patches, options, said):
    with pytest.raises(UserError) as refused:
        make_folds(patches, n_folds=3, **options)
    (line,) = refused.value.problems
    assert said in line


def test_two_budgets_at_once_are_refused():
    with pytest.raises(UserError, match=r"data\.label_budget and data\.slide_budget both .* set one of them to null"):
        load_recipe(None, ["data.label_budget=50", "data.slide_budget=5"])


def test_a_recipe_without_it_keeps_the_digest_of_runs_made_before_the_key():
    from pcam_ssl.recipe.loading import identity

    plain, budgeted = load_recipe(None, []), load_recipe(None, ["data.slide_budget=5"])
    assert "data.slide_budget" not in identity(plain) and identity(budgeted)["data.slide_budget"] == 5
    assert recipe_digest(plain) != recipe_digest(budgeted)


@pytest.mark.trains
def test_a_run_trains_on_those_slides_and_hides_the_others(train, tmp_path):
    run = train(tmp_path / "run", "data.slide_budget=7", "train.epochs=1", "train.batch_size=8")
    folds = read_folds(run.paths.folds, run.dataset.patches)
    assert folds.slide_budget == 7
    from pcam_ssl.data.folds import fold_unit

    unit = fold_unit(folds, 0)
    hidden = folds.frame.id[~folds.frame.visible & ~unit.score]
    assert len(hidden) and set(hidden) <= set(pool_rows(run.dataset, folds, unit).id)
    assert np.all(run.oof.label.notna()) and len(run.oof) == len(folds.frame)
