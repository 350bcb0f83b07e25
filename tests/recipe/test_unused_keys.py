"""Keys that are set and that nothing reads are named, with the setting that would use them."""

import pytest

from pcam_ssl.cross_validation.checks import warn_of_unused_keys
from pcam_ssl.recipe.loading import all_stated, load_recipe, recipe_digest, recipe_names, recipe_path
from pcam_ssl.recipe.schema import EMBEDDING_LOSSES, Metric, Recipe
from pcam_ssl.recipe.unused_keys import METRIC, READERS, unused_keys
from pcam_ssl.runs.begin import begin_run
from pcam_ssl.runs.run import Run
from pcam_ssl.units.unit import read_units

LBFGS = ("model.freeze_backbone=true", "optim.name=lbfgs")


def lines(*settings) -> list[str]:
    return unused_keys(load_recipe(None, settings))


@pytest.mark.parametrize(
    ("settings", "key", "used_by"),
    [
        (["spatial.weight=0.5"], "spatial.weight", ["spatial.use=true"]),
        (["spatial.step_px=96"], "spatial.step_px", ["spatial.use=true"]),
        (["neighbours.k=5"], "neighbours.k", ["neighbours.use=true"]),
        (["neighbours.k=5"], "neighbours.k", ["method.name=metric"]),
        (["graph.transductive=true"], "graph.transductive", ["graph.use=true"]),
        (["model.hidden=64"], "model.hidden", ["model.head=mlp"]),
        (["features.random_views=8"], "features.random_views", ["model.freeze_backbone=true"]),
        (["method.focal_gamma=1"], "method.focal_gamma", ["method.loss=focal"]),
        (["method.name=metric", "method.margin_deg=20", "method.loss=supcon"], "method.margin_deg", ["method.loss=arcface"]),
        (["method.name=metric", "method.triplet_margin=1", "method.loss=supcon"], "method.triplet_margin", ["method.miner=hard"]),
    ],
)
def test_a_key_without_its_switch_is_named_and_with_it_is_not(settings, key, used_by):
    (line,) = lines(*settings)
    assert line.startswith(f"{key}: without effect unless {key.split('.')[0] if 'features' not in key else 'model'}.")
    switched = {setting.partition("=")[0] for setting in used_by}
    assert lines(*[setting for setting in settings if setting.partition("=")[0] not in switched], *used_by) == []


@pytest.mark.parametrize(
    ("settings", "text", "used_by"),
    [
        (
            ["cv.scheme=official", "cv.folds=3"],
            "cv.folds: without effect unless cv.scheme=grouped or random; ",
            ["cv.scheme=random"],
        ),
        (["cv.scheme=official", "cv.folds=10"], "cv.folds: without effect unless cv.scheme=grouped or", ["cv.scheme=grouped"]),
        ([*LBFGS, "train.epochs=3"], "train.epochs: without effect unless optim.name=adamw, adam or sgd", ["optim.name=adamw"]),
        ([*LBFGS, "train.tensorboard=true"], "train.tensorboard: without effect unless optim.name=", ["optim.name=sgd"]),
        ([*LBFGS, "schedule.rise_share=0.5"], "schedule.rise_share: without effect unless optim.name=", ["optim.name=adam"]),
        (
            *(
                ["model.freeze_backbone=true", "train.compile=true"],
                "train.compile: without effect unless model.freeze_backbone=false",
            ),
            ["model.freeze_backbone=false"],
        ),
        (
            *(["views.policy=d4", "views.strength=2"], "views.strength: without effect unless views.policy=standard or strong"),
            ["views.policy=strong"],
        ),
        (
            *(["model.freeze_backbone=true", "views.strength=2"], "views.strength: without effect unless views.policy="),
            ["views.policy=standard", "features.random_views=8", "model.freeze_backbone=true"],
        ),
        (
            *(
                ["method.name=fixmatch", "method.strong=d4", "views.policy=none", "views.strength=2"],
                "views.strength: without effect",
            ),
            ["method.strong=standard"],
        ),
    ],
)
def test_what_another_choice_would_use_names_that_choice(settings, text, used_by):
    (line,) = lines(*settings)
    assert line.startswith(text)
    switched = {setting.partition("=")[0] for setting in used_by}
    assert lines(*[setting for setting in settings if setting.partition("=")[0] not in switched], *used_by) == []


def test_views_of_pseudo_labels_count_in_rounds_alone():
    recipe = load_recipe(None, ["views.policy=d4", "pseudo.noise=strong", "views.strength=2"])
    assert unused_keys(recipe)[0].startswith("views.strength: ")
    assert unused_keys(recipe, rounds=True) == []
    (line,) = unused_keys(load_recipe(None, ["views.policy=d4", "pseudo.noise=d4", "views.strength=2"]), rounds=True)
    assert "unless views.policy or pseudo.noise=standard or strong" in line


def test_several_keys_of_one_switch_are_one_line():
    (line,) = lines("graph.k=5", "graph.alpha=0.5", "graph.power=2")
    assert line == "graph.k, graph.alpha, graph.power: without effect unless graph.use=true; set that, or leave them out"


@pytest.mark.parametrize("name", [None, *recipe_names()])
def test_no_shipped_recipe_sets_a_key_without_effect(name):
    assert unused_keys(load_recipe(name)) == []


@pytest.mark.parametrize(
    ("name", "settings", "key", "own"),
    [
        ("smoke", ["cv.scheme=official"], "cv.folds", "cv.folds=4"),
        ("smoke", ["model.freeze_backbone=true", "optim.name=lbfgs"], "train.batch_size", "train.batch_size=64"),
        ("uni2", ["optim.name=lbfgs"], "train.epochs", "train.epochs=30"),
    ],
)
def test_what_a_shipped_recipe_sets_is_named_only_where_the_user_changes_it(name, settings, key, own, tmp_path):
    assert unused_keys(load_recipe(name, settings)) == []
    (line,) = unused_keys(load_recipe(name, [*settings, own]))
    assert line.startswith(f"{key}: without effect")
    mine = tmp_path / "mine.yaml"
    mine.write_text(recipe_path(name).read_text())
    assert key in unused_keys(load_recipe(mine, settings))[0]


def test_what_a_run_states_is_named_only_where_the_user_changes_it(tmp_path):
    """Its own command has told it: rounds on the run, and the same recipe again, do not."""
    begun = begin(
        tmp_path / "run", "smoke", "model.freeze_backbone=true", "optim.name=lbfgs", "train.epochs=9", "spatial.weight=0.5"
    )
    again = [
        load_recipe(begun.paths.recipe),
        load_recipe(None, [], begun.recipe),
        load_recipe("smoke", ["train.epochs=9"], begun.recipe),
    ]
    assert [unused_keys(each) for each in again] == [[], [], []]
    (line,) = unused_keys(load_recipe(None, ["train.epochs=9", "train.clip_norm=1", "spatial.weight=0.5"], begun.recipe))
    assert line.startswith("train.clip_norm: ")


def begin(path, name, *settings) -> Run:
    run, recipe = Run(path), load_recipe(name, settings)
    begin_run(run, recipe, {"path": str(path), "digest": "0"}, "baseline")
    return run


def test_who_stated_a_key_makes_no_other_recipe():
    recipe = load_recipe("smoke")
    assert recipe == all_stated(recipe) and recipe.stated != all_stated(recipe).stated
    assert recipe.stated["train.epochs"] == 4 and recipe != load_recipe("smoke", ["train.epochs=5"])
    assert recipe.model_copy(update={"seed": 3}).stated == recipe.stated
    assert recipe_digest(recipe) == recipe_digest(all_stated(recipe)) and recipe.dump() == all_stated(recipe).dump()


def test_every_key_of_a_section_with_a_switch_is_known():
    for section in ("neighbours", "graph", "spatial"):
        known = {key for name, keys, *_ in READERS if name == section for key in keys.split()}
        assert known | {"use"} == set(type(getattr(Recipe(), section)).model_fields)


@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
def test_every_metric_loss_reads_a_key_of_its_own(loss):
    assert any(used(Metric(loss=loss)) for _, _, used in METRIC)


def test_a_run_that_begins_says_it(tiny_recipe, capsys):
    warn_of_unused_keys(tiny_recipe("spatial.weight=0.5"))
    assert "WARNING: spatial.weight: without effect unless spatial.use=true" in " ".join(capsys.readouterr().err.split())


def test_several_runs_say_it_once(tiny_recipe, capsys):
    warn_of_unused_keys(*(tiny_recipe("spatial.weight=0.5", f"seed={seed}") for seed in (0, 1)))
    assert capsys.readouterr().err.count("spatial.weight") == 1


def test_what_was_stated_of_a_section_goes_with_its_name():
    run = all_stated(load_recipe(None, ["schedule.name=one_cycle", "views.policy=d4"]))
    assert [key for key in run.stated if key.startswith("schedule.")]
    other = load_recipe(None, [*LBFGS, "schedule.name=cosine"], base=run)
    assert not [key for key in other.stated if key.startswith(("schedule.", "optim."))]
    assert not [line for line in unused_keys(other) if "schedule" in line]


def test_a_plan_says_it_once_for_all_runs(command, slides, tmp_path):
    words = ["--set", "spatial.weight=0.5", "--seeds", "0,1", "--out", tmp_path / "runs"]
    done = command("plan", "smoke", "--data", slides, *words)
    assert done.code == 0 and done.err.count("spatial.weight") == 1
    (tmp_path / "units.jsonl").write_text(done.out)
    assert [unused_keys(unit.loaded_recipe()) for unit in read_units(tmp_path / "units.jsonl")] == [[]] * 6
