import pytest
from pydantic import ValidationError

from pcam_ssl.recipe import MACHINE_KEYS, AdamW, OneCycle, Recipe, Supervised
from pcam_ssl.recipe_files import flatten


def test_the_defaults_are_the_base_recipe():
    recipe = Recipe()
    assert (recipe.method, recipe.optim, recipe.schedule) == (Supervised(), AdamW(), OneCycle())
    assert recipe.cv.scheme == "grouped"
    assert recipe.train.choose == "last"


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().train.epochs = 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": {"freeze_backbone": True, "head_first_epochs": 1}}, "no meaning with model.freeze_backbone"),
        ({"model": {"head_first_epochs": 3}, "train": {"epochs": 3}}, "leaves the backbone no epoch"),
        ({"cv": {"seed": 0, "folds_file": "runs/a/folds.parquet"}}, "cv.seed draws folds, and cv.folds_file names drawn ones"),
        ({"predict": {"random_views": 2}, "views": {"policy": "none"}}, "draws from views.policy, which is none"),
    ],
)
def test_choices_that_contradict_each_other_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values)


def test_machine_keys_exist():
    assert set(MACHINE_KEYS) <= set(flatten(Recipe().dump()))


def test_a_dump_holds_plain_values_only():
    kinds = {type(value) for value in flatten(Recipe().dump()).values()}
    assert kinds <= {int, float, str, bool, type(None)}
