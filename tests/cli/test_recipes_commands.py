import pytest

from pcam_ssl.models.foundation import FOUNDATION_MODELS
from pcam_ssl.models.weights import PACKAGES
from pcam_ssl.recipe.loading import load_recipe, recipe_names, recipe_path
from pcam_ssl.recipe.schema import Recipe


def test_list_names_every_recipe_and_its_purpose(command):
    finished = command("recipes", "list")
    assert finished.code == 0
    listed = dict(line.split(maxsplit=1) for line in finished.out.partition("\n\n")[0].splitlines())
    assert list(listed) == recipe_names()
    assert "trains in seconds" in listed["smoke"]


def test_list_names_the_weights_on_this_machine(command, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc").mkdir(parents=True)
    (tmp_path / "models--timm--resnet18.a1_in1k" / "snapshots" / "abc" / "model.safetensors").touch()
    (tmp_path / "models--timm--unfinished" / "snapshots" / "abc").mkdir(parents=True)
    cache, *packages = command("recipes", "list").out.partition("weights on this machine:\n")[2].splitlines()
    assert cache == f"1 models of the hub cached in {tmp_path}: timm/resnet18.a1_in1k"
    there = [package for package in PACKAGES.values() if package.path is not None]
    assert packages == [f"{each.title} has {each.architecture} (Apache-2.0), digest ok" for each in there]


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_list_says_size_and_gating_of_a_foundation_model(command, name):
    model = FOUNDATION_MODELS[name]
    (line,) = [line for line in command("recipes", "list").out.splitlines() if line.startswith(f"{name} ")]
    assert model.title in line and f"{model.dimension:,} dimensions" in line
    assert line.endswith(f" ({model.terms()})")


def test_show_prints_a_recipe_that_reads_back(command, tmp_path):
    finished = command("recipes", "show", "smoke", "--set", "optim.lr=1e-3")
    (tmp_path / "shown.yaml").write_text(finished.out)
    assert load_recipe(tmp_path / "shown.yaml") == load_recipe("smoke", ["optim.lr=1e-3"])


def test_show_keys_prints_their_descriptions(command):
    finished = command("recipes", "show", "baseline", "--keys")
    assert "train.epochs = 8" in finished.out
    assert "# patches per step, over all processes" in finished.out


def test_copy_makes_a_file_to_change(command, tmp_path):
    finished = command("recipes", "copy", "smoke", tmp_path / "mine.yaml")
    assert finished.code == 0
    assert (tmp_path / "mine.yaml").read_text() == recipe_path("smoke").read_text()
    assert load_recipe(tmp_path / "mine.yaml") != Recipe()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["show", "smok"], "--recipe smok: no shipped recipe has that name. Did you mean smoke?"),
        (["show", "smoke", "--set", "train.epoch=1"], "recipe smoke: unknown key train.epoch. Did you mean epochs?"),
        (["copy", "smok", "mine.yaml"], "--recipe smok: no shipped recipe has that name."),
        (["copy", "smoke", "mine.txt"], "recipes copy mine.txt: is written as yaml; name it mine.yaml"),
        (["copy", "smoke", "taken.yaml"], "taken.yaml: exists already; choose another name"),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, monkeypatch, words, problem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.yaml").write_text("mine")
    finished = command("recipes", *words)
    assert finished.code == 2
    assert len(finished.problems) == 1
    assert finished.problems[0].startswith(problem)
    assert [path.name for path in tmp_path.iterdir()] == ["taken.yaml"]
    assert (tmp_path / "taken.yaml").read_text() == "mine"
