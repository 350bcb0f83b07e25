import re
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from pcam_ssl.recipe.loading import flatten
from pcam_ssl.recipe.schema import MACHINE_KEYS, AdamW, OneCycle, Recipe, Supervised


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


def numbers(section=Recipe, place=""):
    """Section, key and place of everything in a recipe that takes a number, of every method, optimizer and schedule."""
    for key, field in section.model_fields.items():
        members = [*get_args(field.annotation), field.annotation]
        sections = [each for each in members if isinstance(each, type) and issubclass(each, BaseModel)]
        for each in sections:
            yield from numbers(each, f"{place}{key} {each.__name__}.")
        if not sections and {"int", "float"} & set(re.findall(r"\w+", str(field.annotation))):
            yield pytest.param(section, key, id=f"{place}{key}")


def test_numbers_are_found():
    assert len(list(numbers())) > 60


@pytest.mark.parametrize(("section", "key"), numbers())
@pytest.mark.parametrize("value", [float("inf"), float("nan"), 10**38, -(10**38), 1e38, True])
def test_every_number_has_bounds(section, key, value):
    if value is True and bool in get_args(section.model_fields[key].annotation):
        return
    with pytest.raises(ValidationError) as caught:
        section.model_validate({key: value})
    assert {error["loc"][0] for error in caught.value.errors()} == {key}
