from pathlib import Path

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import (
    describe_keys,
    differences,
    flatten,
    load_recipe,
    recipe_digest,
    recipe_folder,
    recipe_names,
    to_yaml,
)
from pcam_ssl.recipe.schema import MACHINE_KEYS, AdamW, Recipe, Sgd
from pcam_ssl.recipe.yaml_text import read_yaml

SHIPPED = sorted(recipe_folder().rglob("*.yaml"))


def problems(*settings, name=None) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_recipe(name, settings)
    return list(caught.value.problems)


@pytest.fixture
def write(tmp_path):
    def write(text: str, name: str = "mine.yaml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def test_there_are_shipped_recipes():
    assert len(SHIPPED) >= 4
    assert {"article-resnet34", "baseline", "smoke"} <= set(recipe_names())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads(path):
    assert isinstance(load_recipe(path), Recipe)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_headed_with_its_purpose_and_command(path):
    purpose, command = path.read_text().splitlines()[:2]
    assert purpose.startswith("# ")
    assert command.startswith("# pcam-ssl ")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_resolved_recipe_reads_back_equal(path, write):
    recipe = load_recipe(path)
    assert load_recipe(write(to_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3E4", 3e4),
        ("-1.5e-07", -1.5e-7),
        (".5", 0.5),
        ("1.", 1.0),
        ("7", 7),
        ("yes", "yes"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("null", None),
        ("e3", "e3"),
        ("1e", "1e"),
        ("resnet34", "resnet34"),
    ],
)
def test_yaml_is_read_as_yaml_1_2(write, text, value):
    read = read_yaml(write(f"key: {text}"))["key"]
    assert (read, type(read)) == (value, type(value))


def test_yes_is_not_a_boolean():
    assert problems("model.pretrained=yes_please") == [
        "recipe --set: model.pretrained: Input should be a valid boolean (got 'yes_please')"
    ]


def test_settings_come_after_the_recipe():
    recipe = load_recipe("smoke", ["train.epochs=9", "optim.lr=1e-3"])
    assert (recipe.train.epochs, recipe.optim.lr, recipe.model.name) == (9, 1e-3, "test_resnet")


def test_another_name_clears_its_section(write):
    path = write("optim: {name: adamw, lr: 0.5, weight_decay: 0.3}")
    assert load_recipe(path, ["optim.name=sgd"]).optim == Sgd()


def test_the_same_name_keeps_its_section(write):
    path = write("optim: {lr: 0.5}")  # adamw, by default
    assert load_recipe(path, ["optim.name=adamw"]).optim == AdamW(lr=0.5)


def test_a_name_clears_before_its_keys_are_set_whatever_the_order(write):
    path = write("optim: {name: adamw, weight_decay: 0.3}")
    assert load_recipe(path, ["optim.lr=0.1", "optim.name=sgd"]).optim == Sgd(lr=0.1)


def test_another_backbone_keeps_the_model_section(write):
    recipe = load_recipe(write("model: {name: resnet34, image_size: 224}"), ["model.name=densenet121"])
    assert (recipe.model.name, recipe.model.image_size) == ("densenet121", 224)


def test_a_section_without_name_means_the_default_name(write):
    assert load_recipe(write("optim: {lr: 0.25}")).optim == AdamW(lr=0.25)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=3", "unknown key train.epoch. Did you mean epochs? `pcam-ssl recipes show baseline` lists every key"),
        ("trian.epochs=3", "unknown key trian. Did you mean train? `pcam-ssl recipes show baseline` lists every key"),
        ("optim.momentum=0.9", "unknown key optim.momentum. `pcam-ssl recipes show baseline` lists every key"),
        ("method.los=bce", "unknown key method.los. Did you mean loss? `pcam-ssl recipes show baseline` lists every key"),
        ("train.epochs=0", "train.epochs: Input should be greater than or equal to 1 (got 0)"),
        ("train.epochs=ten", "train.epochs: Input should be a valid integer (got 'ten')"),
        ("cv.scheme=group", "cv.scheme: Input should be 'grouped', 'official' or 'random' (got 'group')"),
        ("optim.lr=0", "optim.lr: Input should be greater than 0 (got 0)"),
        ("model.head_first_epochs=99", "model.head_first_epochs leaves the backbone no epoch; raise train.epochs"),
    ],
)
def test_a_wrong_setting_is_one_line_with_the_key(setting, message):
    assert problems(setting) == [f"recipe --set: {message}"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lr=.inf", "optim.lr: Input should be a finite number (got inf)"),
        ("optim.lr=1e400", "optim.lr: Input should be a finite number (got inf)"),
        ("optim.lr=.nan", "optim.lr: Input should be a finite number (got nan)"),
        ("optim.lr=-1", "optim.lr: Input should be greater than 0 (got -1)"),
        ("optim.lr=1e39", "optim.lr: Input should be less than or equal to 1000000000000000000000000000000 (got 1e+39)"),
        ("train.epochs=1e400", "train.epochs: Input should be a valid integer (got inf)"),
        ("train.epochs=true", "train.epochs: Input should be a valid integer (got True)"),
        ("model.drop_rate=false", "model.drop_rate: Input should be a valid number (got False)"),
        ("train.compile=1", "train.compile: Input should be a valid boolean, or 'auto' (got 1)"),
        ("neighbours.k=0", "neighbours.k: Input should be greater than or equal to 1, or 'inner' (got 0)"),
        ("neighbours.k=-3", "neighbours.k: Input should be greater than or equal to 1, or 'inner' (got -3)"),
        ("neighbours.k=true", "neighbours.k: Input should be a valid integer, or 'inner' (got True)"),
        ("neighbours.k=2.5", "neighbours.k: Input should be a valid integer, or 'inner' (got 2.5)"),
        ("neighbours.temperature=0", "neighbours.temperature: Input should be greater than 0, or 'inner' (got 0)"),
        ("train.workers=-1", "train.workers: Input should be greater than or equal to 0, or 'auto' (got -1)"),
        ("model.name=''", "model.name: String should have at least 1 character (got '')"),
    ],
)
def test_a_number_out_of_its_range_is_refused_naming_its_key(setting, message):
    assert problems(setting) == [f"recipe --set: {message}"]


def test_an_unknown_name_lists_the_known_ones():
    (problem,) = problems("optim.name=adamm")
    assert problem.startswith("recipe --set: optim")
    assert all(name in problem for name in ("adam", "adamw", "sgd", "adamm"))


def test_every_problem_has_its_own_line(write):
    path = write("train: {epochs: 0, batch: 3}\nmodle: {}")
    assert problems(name=path) == [
        f"recipe {path}: train.epochs: Input should be greater than or equal to 1 (got 0)",
        f"recipe {path}: unknown key train.batch. Did you mean batch_size? `pcam-ssl recipes show baseline` lists every key",
        f"recipe {path}: unknown key modle. Did you mean model? `pcam-ssl recipes show baseline` lists every key",
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epochs", "--set train.epochs: write KEY=VALUE, for example --set train.epochs=3"),
        ("=3", "--set =3: write KEY=VALUE, for example --set train.epochs=3"),
        ("train.epochs.x=3", "--set train.epochs.x=3: epochs is a value, not a section"),
        ("model.name=[a", "--set model.name=[a: the value is not readable as YAML; quote it"),
    ],
)
def test_a_setting_that_cannot_be_applied_is_refused(write, setting, message):
    assert problems(setting, name=write("train: {epochs: 2}")) == [message]


def test_an_unknown_recipe_names_the_nearest():
    assert problems(name="smok") == [
        "--recipe smok: no shipped recipe has that name. Did you mean smoke? `pcam-ssl recipes list` names all; a file must end in .yaml"
    ]


def test_an_absent_file_is_refused(tmp_path):
    assert problems(name=tmp_path / "no.yaml") == [
        f"--recipe {tmp_path}/no.yaml: no such file; `pcam-ssl recipes list` names the shipped ones"
    ]


def test_broken_yaml_names_file_and_line(write):
    (problem,) = problems(name=write("train: {epochs: 3\nmodel: [}"))
    assert "mine.yaml: not readable as YAML" in problem
    assert "line 2" in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("text", "line", "key", "first"),
    [
        ("seed: 1\nseed: 2\n", 2, "seed", 1),
        ("train:\n  epochs: 1\n  batch_size: 4\n  epochs: 2\n", 4, "epochs", 2),
        ("train: {epochs: 1}\nmodel: {}\n'train': {}\n", 3, "train", 1),
    ],
)
def test_a_repeated_key_is_refused_naming_both_lines(write, text, line, key, first):
    path = write(text)
    assert problems(name=path) == [f"{path}: line {line} gives the key {key} again, first given in line {first}; keep one"]


def test_a_repeated_key_in_a_setting_is_refused():
    (problem,) = problems("train={epochs: 1, epochs: 2}")
    assert problem.startswith("--set train={epochs: 1, epochs: 2}: line 1 gives the key epochs again")


@pytest.mark.parametrize("text", ["2024-99-99", "!!int ''", "!!bool x", "[" * 5000, "!!python/name:os.system x"])
def test_yaml_that_breaks_the_parser_is_one_line(write, text):
    (problem,) = problems(name=write(f"seed: {text}"))
    assert "mine.yaml: not readable as YAML" in problem
    assert "\n" not in problem
    assert problems(f"seed={text}") == [f"--set seed={text}: the value is not readable as YAML; quote it"]


def test_a_section_must_have_a_name(write):
    (problem,) = problems(name=write("1: {epochs: 2}"))
    assert "mine.yaml: 1 is no section of a recipe" in problem


def test_a_value_of_many_aliases_is_one_short_line():
    doubled = ", ".join(f"&a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))
    (problem,) = problems(f"seed=[&a0 [x, x], {doubled}]")
    assert problem.startswith("recipe --set: seed: Input should be a valid integer (got [")
    assert len(problem) < 2000


def test_a_list_is_not_a_recipe(write):
    (problem,) = problems(name=write("- train"))
    assert problem.endswith("a recipe is a mapping of sections (model:, train:, ...), this is a list")


def test_an_empty_file_gives_the_defaults(write):
    assert load_recipe(write("# nothing\n")) == Recipe()


@pytest.mark.parametrize("key", MACHINE_KEYS)
def test_the_digest_ignores_machine_keys(key):
    value = {"train.device": "cpu", "train.data": "device", "train.tensorboard": "true", "train.mlflow": "true"}.get(key, "7")
    changed = load_recipe(None, [f"{key}={value}"])
    assert changed != Recipe()
    assert recipe_digest(changed) == recipe_digest(Recipe())
    assert differences(Recipe(), changed) == []


def test_recipes_older_than_a_key_keep_their_digest():
    # Runs made before train.compile took auto, and before there was views.engine, are continued with these.
    assert recipe_digest(Recipe()) == "be76589ba7014353c030ad9ae1726c6ef69756c4597543c946f6ebf0e9281f3c"
    older = load_recipe(None, ["views.policy=strong", "train.compile=true"])
    assert recipe_digest(older, rounds=True) == "bee14488b8c03d422bbdf1ee94963068f125a230e912cec90561b05d2e98597e"


def test_the_engine_of_views_is_part_of_the_digest_where_it_is_tensor():
    digests = {
        engine: recipe_digest(load_recipe(None, [f"views.engine={engine}"])) for engine in ("auto", "albumentations", "tensor")
    }
    assert digests["auto"] == digests["albumentations"] == recipe_digest(Recipe()) != digests["tensor"]


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["train.data=device", "views.engine=albumentations"], "train.data=device: albumentations computes views on the host"),
        (
            ["views.engine=tensor", "model.freeze_backbone=true"],
            "views.engine=tensor: heads of a frozen backbone train on cached features",
        ),
        (
            ["train.data=device", "model.freeze_backbone=true"],
            "train.data=device: heads of a frozen backbone train on cached features",
        ),
        (
            ["train.data=device", "views.transform={transform: {}}", "views.policy=file"],
            "train.data=device: only albumentations computes views.file (views.policy=file); set train.data=host",
        ),
        (["train.data=gpu"], "train.data: Input should be 'auto', 'host' or 'device' (got 'gpu')"),
        (["views.engine=torch"], "views.engine: Input should be 'auto', 'albumentations' or 'tensor' (got 'torch')"),
    ],
)
def test_views_that_the_device_cannot_compute_are_refused(settings, problem):
    (found,) = problems(*settings)
    assert found.startswith(f"recipe --set: {problem}")


def test_every_other_key_changes_the_digest():
    assert recipe_digest(load_recipe(None, ["seed=1"])) != recipe_digest(Recipe())


def test_a_graph_that_is_not_used_is_no_part_of_the_digest():
    assert recipe_digest(load_recipe(None, ["graph.k=7"])) == recipe_digest(Recipe())
    used = [recipe_digest(load_recipe(None, ["graph.use=true", f"graph.k={k}"])) for k in (7, 8)]
    assert len({*used, recipe_digest(Recipe())}) == 3


def test_differences_name_keys_of_both_sides():
    sgd = load_recipe(None, ["optim.name=sgd", "train.epochs=3"])
    assert "train.epochs: 10 -> 3" in differences(Recipe(), sgd)
    assert "optim.name: adamw -> sgd" in differences(Recipe(), sgd)
    assert "optim.momentum: None -> 0.9" in differences(Recipe(), sgd)


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("views.engine=tensor", "views.engine: auto -> tensor"),
        ("spatial.use=true", "spatial.use: False -> True"),
    ],
)
def test_differences_show_values_that_the_identity_omits(setting, changed):
    assert differences(Recipe(), load_recipe(None, [setting])) == [changed]


def test_every_key_is_described():
    recipe = Recipe()
    described = {line.split(" = ")[0] for line in describe_keys(recipe)}
    assert described == set(flatten(recipe.dump()))
