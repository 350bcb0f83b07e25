"""Keys that are set and that nothing reads are named, with the setting that would use them."""

import pytest

from pcam_ssl.cross_validation.checks import check_start
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.recipe.loading import load_recipe, recipe_names
from pcam_ssl.recipe.schema import EMBEDDING_LOSSES, Metric, Recipe
from pcam_ssl.recipe.unused_keys import METRIC, READERS, unused_keys


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


def test_several_keys_of_one_switch_are_one_line():
    (line,) = lines("graph.k=5", "graph.alpha=0.5", "graph.power=2")
    assert line == "graph.k, graph.alpha, graph.power: without effect unless graph.use=true; set that, or leave them out"


@pytest.mark.parametrize("name", [None, *recipe_names()])
def test_no_shipped_recipe_sets_a_key_without_effect(name):
    assert unused_keys(load_recipe(name)) == []


def test_every_key_of_a_section_with_a_switch_is_known():
    for section in ("neighbours", "graph", "spatial"):
        known = {key for name, keys, *_ in READERS if name == section for key in keys.split()}
        assert known | {"use"} == set(type(getattr(Recipe(), section)).model_fields)


@pytest.mark.parametrize("loss", EMBEDDING_LOSSES)
def test_every_metric_loss_reads_a_key_of_its_own(loss):
    assert any(used(Metric(loss=loss)) for _, _, used in METRIC)


def test_a_run_that_begins_says_it(slides, tiny_recipe, capsys):
    check_start(tiny_recipe("spatial.weight=0.5"), open_dataset(slides))
    assert "WARNING: spatial.weight: without effect unless spatial.use=true" in " ".join(capsys.readouterr().err.split())


def test_a_plan_says_it_once_for_all_runs(command, slides, tmp_path):
    words = ["--set", "spatial.weight=0.5", "--seeds", "0,1", "--out", tmp_path / "runs"]
    done = command("plan", "smoke", "--data", slides, *words)
    assert done.code == 0 and done.err.count("spatial.weight") == 1
