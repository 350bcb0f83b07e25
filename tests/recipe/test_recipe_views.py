"""`views.file` in a recipe: read once, sets the policy, and is part of the digest."""

import json
from pathlib import Path

import albumentations as A
import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import differences, load_recipe, recipe_digest, to_yaml


@pytest.fixture
def own(tmp_path):
    """own("name.yaml", p=0.5): the path of a policy that albumentations.save wrote."""

    def own(name: str = "own.json", p: float = 0.5) -> str:
        path = tmp_path / name
        A.save(A.Compose([A.GaussNoise(p=p), A.InvertImg(p=1)]), path, data_format="json" if path.suffix == ".json" else "yaml")
        return str(path)

    return own


def problem(*settings: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(None, settings)
    (line,) = caught.value.problems
    assert "\n" not in line
    return line


def test_the_recipe_holds_what_the_file_holds(own):
    path = own()
    views = load_recipe(None, [f"views.file={path}"]).views
    assert (views.policy, views.file, views.transform) == ("file", None, json.loads(Path(path).read_text()))


def test_yaml_and_json_are_the_same_recipe(own):
    digests = {recipe_digest(load_recipe(None, [f"views.file={own(name)}"])) for name in ("a.json", "b.yaml", "c.yml")}
    assert len(digests) == 1


def test_the_content_changes_the_digest_and_differences_are_by_key(own):
    first, other = (load_recipe(None, [f"views.file={own('own.json', p)}"]) for p in (0.5, 0.6))
    assert differences(first, other) == ["views.transform.transform.transforms.0.p: 0.5 -> 0.6"]
    assert recipe_digest(first) != recipe_digest(other)


def test_a_resolved_recipe_needs_no_file(own, tmp_path):
    recipe = load_recipe(None, [f"views.file={own()}"])
    (tmp_path / "own.json").unlink()
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


def test_a_recipe_file_sets_the_policy_as_a_setting_does(own, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"views: {{file: {own()}}}")
    assert load_recipe(tmp_path / "mine.yaml") == load_recipe(None, [f"views.file={own()}"])


@pytest.mark.parametrize("order", [1, -1])
def test_the_file_may_be_the_noise_beside_another_training_policy(own, order):
    settings = ["views.policy=standard", "pseudo.noise=file", f"views.file={own()}"][::order]
    recipe = load_recipe(None, settings)
    assert (recipe.views.policy, recipe.pseudo.noise) == ("standard", "file") and recipe.views.transform


def test_a_consistency_method_may_use_the_file(own):
    recipe = load_recipe(None, [f"views.file={own()}", "views.policy=d4", "method.name=fixmatch", "method.strong=file"])
    assert (recipe.views.policy, recipe.method.strong) == ("d4", "file") and recipe.views.transform


def test_another_file_replaces_the_one_of_the_run(own):
    begun = load_recipe(None, [f"views.file={own(p=0.5)}"])
    assert load_recipe(None, [f"views.file={own(p=0.6)}"], begun).views.transform["transform"]["transforms"][0]["p"] == 0.6


def test_a_transform_that_nothing_uses_is_dropped(own):
    begun = load_recipe(None, [f"views.file={own()}"])
    assert load_recipe(None, ["views.policy=d4"], begun) == load_recipe(None, ["views.policy=d4"])


@pytest.mark.parametrize("key", ["views.policy", "pseudo.noise", "method.strong"])
def test_policy_file_without_a_file_is_refused(key):
    more = ["method.name=fixmatch"] if key.startswith("method") else []
    assert f"{key} is file and there is none; set views.file=PATH" in problem(*more, f"{key}=file")


def test_a_file_that_nothing_uses_is_refused(own):
    assert "set views.policy=file" in problem(f"views.file={own()}", "views.policy=standard")


def test_an_absent_file_is_refused(tmp_path):
    assert problem(f"views.file={tmp_path}/no.yaml").startswith(f"views.file: {tmp_path}/no.yaml: no such file")
    assert problem(f"views.file={tmp_path}").startswith(f"views.file: {tmp_path}: is a folder")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("{", "not readable as YAML"),
        ("\x00\x01", "not readable as YAML"),
        ("[1, 2]", "a list"),
        ("", "mapping `transform`"),
        ("model: {name: resnet18}", "mapping `transform`"),
        ("transform: GaussNoise", "mapping `transform`"),
        ("transform: {p: .nan}", "Out of range"),
        ("transform: {p: !!binary aGk=}", "bytes"),
        ("transform: &a [*a]", "mapping `transform`"),
        ("transform: &a {b: *a}", "Circular"),
        ("transform: !!python/object/apply:os.system ['true']", "not readable as YAML"),
    ],
    ids=repr,
)
def test_a_file_that_albumentations_did_not_write_is_refused(tmp_path, content, named):
    path = tmp_path / "own.yaml"
    path.write_text(content)
    line = problem(f"views.file={path}")
    assert line.startswith(f"views.file: {path}") and named in line
