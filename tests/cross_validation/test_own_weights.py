"""Runs that start from a file (`model.weights`) or a package of weights: continued with the same weights only."""

import shutil

import pytest
import timm
import torch
from safetensors.torch import load_file

from pcam_ssl.cross_validation.checks import published_from
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file, read_json, write_json
from pcam_ssl.models.weights import PACKAGES
from pcam_ssl.recipe.loading import differences, load_recipe, recipe_digest, to_yaml
from pcam_ssl.recipe.schema import Model, Recipe
from pcam_ssl.runs.run import Run

STILL = ("train.epochs=1", "model.freeze_backbone=true")
LITE0 = PACKAGES["tf_efficientnet_lite0"]


def write(path, seed: int = 1) -> str:
    torch.manual_seed(seed)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), path)
    return f"model.weights={path}"


@pytest.fixture(scope="module")
def own(train, tmp_path_factory) -> Run:
    """A finished run with a frozen backbone of a file. Do not write into it."""
    folder = tmp_path_factory.mktemp("own")
    return train(folder / "run", *STILL, write(folder / "weights.pt"))


@pytest.fixture
def unfinished(own, tmp_path) -> Run:
    """A copy of the run whose second fold is not trained."""
    run = Run(shutil.copytree(own.path, tmp_path / "run"))
    shutil.rmtree(run.fold(1))
    return run


def test_every_fold_starts_from_the_file(own):
    theirs = torch.load(own.path.parent / "weights.pt", weights_only=True)
    for k in (0, 1):
        mine = load_file(own.fold(k) / "model.safetensors")
        assert all(value.equal(theirs[name[9:]]) for name, value in mine.items() if name.startswith("backbone."))


@pytest.mark.trains
def test_the_command_says_where_weights_come_from(command, slides, tiny, tmp_path):
    settings = tiny(*STILL, "model.pretrained=true", write(tmp_path / "weights.pt"))
    words = [word for setting in settings for word in ("--set", setting)]
    done = command("baseline", "--data", slides, "--out", tmp_path / "run", "--fold", 0, *words)
    assert done.code == 0
    (line,) = [line for line in done.err.splitlines() if line.startswith("model.weights: ")]
    assert "published weights are not looked for; left out its head (fc.weight, fc.bias)" in line
    assert "RANDOM" not in done.err


def test_a_run_goes_on_with_the_same_content_under_another_name(unfinished, train, tmp_path):
    shutil.copy(unfinished.recipe.model.weights, tmp_path / "elsewhere.pt")
    run = train(unfinished.path, *STILL, f"model.weights={tmp_path / 'elsewhere.pt'}")
    assert run.fold_done(1) and run.info()["status"] == "done"


def test_a_run_is_not_continued_with_another_content(unfinished, train, tmp_path):
    old = unfinished.recipe.model.weights_digest
    setting = write(tmp_path / "weights.pt", seed=2)
    with pytest.raises(UserError, match=f"begun with another recipe \\(model.weights_digest: {old} -> "):
        train(unfinished.path, *STILL, setting)


def test_a_file_that_changed_since_is_refused_by_the_recipe_of_the_run_too(unfinished, own, command, slides, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    write(tmp_path / "weights.pt", seed=2)
    text = unfinished.paths.recipe.read_text().replace(str(own.path.parent / "weights.pt"), str(tmp_path / "weights.pt"))
    recipe.write_text(text)
    for out in (unfinished.path, tmp_path / "again"):
        done = command("baseline", "--data", slides, "--recipe", recipe, "--out", out)
        (problem,) = done.problems
        assert done.code == 2 and f"has changed (model.weights_digest: {unfinished.recipe.model.weights_digest} -> " in problem
    assert not (tmp_path / "again").exists()


def test_a_finished_run_is_used_without_the_file(own, slides, tmp_path):
    from pcam_ssl.blending.predict import predict_source

    run = Run(shutil.copytree(own.path, tmp_path / "run"))
    text = run.paths.recipe.read_text().replace(str(own.path.parent / "weights.pt"), "gone.pt")
    run.paths.recipe.write_text(text)
    predict_source(run.path, slides, tmp_path / "new.parquet", split="test")


def test_reading_a_recipe_takes_the_digest_and_not_the_place_into_its_identity(tmp_path):
    first = load_recipe(None, [write(tmp_path / "a.pt")])
    assert first.model.weights_digest == digest_file(tmp_path / "a.pt")
    shutil.copy(tmp_path / "a.pt", tmp_path / "b.pt")
    moved = load_recipe(None, [f"model.weights={tmp_path / 'b.pt'}"])
    assert recipe_digest(first) == recipe_digest(moved) and differences(first, moved) == []
    write(tmp_path / "b.pt", seed=2)
    assert [line.partition(":")[0] for line in differences(first, load_recipe(None, [f"model.weights={tmp_path / 'b.pt'}"]))] == [
        "model.weights_digest"
    ]
    (tmp_path / "recipe.yaml").write_text(to_yaml(first))
    again = load_recipe(tmp_path / "recipe.yaml", [f"model.weights={tmp_path / 'b.pt'}"])
    assert again.model.weights_digest == digest_file(tmp_path / "b.pt")
    assert load_recipe(tmp_path / "recipe.yaml", ["model.weights=null"]) == Recipe()


def test_a_recipe_made_in_python_gets_the_digest_too(tmp_path):
    from pcam_ssl.api import recipe

    write(tmp_path / "a.pt")
    made = recipe(Recipe(model=Model(weights=str(tmp_path / "a.pt"))))
    assert made.model.weights_digest == digest_file(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["model.weights=nowhere.pt"], "model.weights: nowhere.pt: no such file or directory; name a file of weights"),
        (["model.weights_digest=" + "a" * 64], "set model.weights"),
        (["model.weights_digest=abc"], "model.weights_digest"),
    ],
)
def test_keys_that_cannot_be(settings, words):
    with pytest.raises(UserError, match=words):
        load_recipe(None, settings)


def test_it_excludes_the_weights_of_a_run(tmp_path):
    with pytest.raises(UserError, match=r"model\.weights and model\.init both give the first weights; drop one"):
        load_recipe(None, [write(tmp_path / "a.pt"), "model.init=runs/a"])


def test_a_network_that_learned_from_this_dataset_is_refused(finished, train, tmp_path):
    with pytest.raises(UserError, match=f"set model.init={finished.path} and cv.folds_file="):
        train(tmp_path / "run", f"model.weights={finished.fold(0) / 'model.safetensors'}")
    assert not (tmp_path / "run").exists()


def test_a_network_of_another_dataset_is_a_warning(finished, train, tmp_path, capsys):
    unit = shutil.copytree(finished.fold(0), tmp_path / "fold-0")
    write_json(unit / "model.json", {**read_json(unit / "model.json"), "dataset_digest": "0" * 64})
    train(tmp_path / "run", "train.epochs=1", f"model.weights={unit / 'model.safetensors'}", only=[0])
    assert "learned from labels of another dataset" in capsys.readouterr().err


def test_a_frozen_backbone_of_random_weights_is_warned_of(train, tmp_path, capsys):
    train(tmp_path / "run", *STILL, only=[0])
    assert "model.freeze_backbone: the backbone keeps RANDOM weights" in capsys.readouterr().err


@pytest.fixture
def no_hub_cache(monkeypatch, tmp_path):
    if LITE0.path is None:
        pytest.skip(f"{LITE0.distribution} is not installed (extra: weights)")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


PUBLISHED = (*STILL, "model.name=tf_efficientnet_lite0", "model.pretrained=true", "train.samples_per_epoch=16")


def test_a_package_of_weights_is_said_recorded_and_kept_to(train, tmp_path, capsys, no_hub_cache, monkeypatch):
    run = train(tmp_path / "run", *PUBLISHED, only=[0])
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("model.pretrained: ")]
    assert told == [f"model.pretrained: weights of tf_efficientnet_lite0 are those of the package {LITE0.title} (Apache-2.0)"]
    assert run.info()["published_weights"] == f"{LITE0.title} (SHA-256 {LITE0.sha256[:12]})"
    network = read_json(run.fold(0) / "model.json")["network"]
    assert network["mean"] == pytest.approx([127 / 255] * 3) and network["std"] == pytest.approx([128 / 255] * 3)
    monkeypatch.setattr("pcam_ssl.models.weights.WeightPackage.path", None)
    with pytest.raises(
        UserError, match=r"begun with weights of tf_efficientnet_lite0 from efficientnet-.*, here they would come from hub"
    ):
        train(run.path, *PUBLISHED)


def test_the_record_tells_a_folder_from_the_hub():
    names = ("local-dir:my-model", "resnet18", "tf_efficientnet_lite0.in1k")
    places = [published_from(load_recipe(None, [f"model.name={name}"])) for name in names]
    assert places == ["local-dir:my-model", "hub", "hub"]
    assert published_from(load_recipe(None, ["model.pretrained=false"])) is None
