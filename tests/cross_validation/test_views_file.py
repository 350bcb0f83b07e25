"""A run whose views are a user's own: continued, stopped and used without the file, refused with another."""

import json
import os
import shutil
import signal

import albumentations as A
import pandas as pd
import pytest

from pcam_ssl.blending.predict import predict_source
from pcam_ssl.data.views import Views
from pcam_ssl.errors import UserError
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table
from pcam_ssl.training.checkpoint import Stopped

SHORT = ("train.epochs=1", "predict.random_views=2")


def write_policy(path, p: float = 0.5) -> str:
    A.save(A.Compose([A.GaussNoise(p=p), A.HueSaturationValue(p=p)]), path)
    return f"views.file={path}"


@pytest.fixture(scope="module")
def own(train, tmp_path_factory) -> Run:
    """A finished run with its own views in training and testing; its file is gone. Do not write into it."""
    folder = tmp_path_factory.mktemp("own")
    run = train(folder / "run", *SHORT, write_policy(folder / "views.json"))
    (folder / "views.json").unlink()
    return run


@pytest.fixture
def copy(own, tmp_path) -> Run:
    return Run(shutil.copytree(own.path, tmp_path / "run"))


def same(run: Run, other: Run, name: str) -> None:
    tables = [read_table(each.path / f"{name}.parquet")[0] for each in (run, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_new_patches_are_predicted_without_the_file(own, slides, tmp_path):
    predict_source(own.path, slides, tmp_path / "new.parquet", split="test")
    new, made = read_table(tmp_path / "new.parquet")[0], read_table(own.path / "test.parquet")[0]
    pd.testing.assert_frame_equal(
        new[["id", "fold", "logit", "view_std"]], made[["id", "fold", "logit", "view_std"]], check_exact=True
    )


def test_random_test_views_are_drawn_from_it(own, train, tmp_path):
    run = train(
        tmp_path / "run",
        *SHORT,
        write_policy(tmp_path / "other.json", 1.0),
        f"model.init={own.path}",
        "optim.lr=1e-12",
        f"cv.folds_file={own.paths.folds}",
    )
    stds = [read_table(each.path / "test.parquet")[0].view_std for each in (own, run)]
    assert not stds[0].equals(stds[1])


def test_a_run_goes_on_with_the_same_content_under_another_name(copy, train, tmp_path):
    assert train(copy.path, *SHORT, write_policy(tmp_path / "elsewhere.json")).path == copy.path


def test_a_run_is_not_continued_with_another_content(copy, train, tmp_path):
    with pytest.raises(UserError, match=r"views\.transform\.transform\.transforms\.0\.p: 0\.5 -> 0\.6"):
        train(copy.path, *SHORT, write_policy(tmp_path / "views.json", 0.6))


def test_its_recipe_repeats_the_run_without_the_file(own, command, slides, tmp_path):
    done = command("baseline", "--data", slides, "--recipe", own.paths.recipe, "--out", tmp_path / "again")
    assert done.code == 0, done.err
    same(own, Run(tmp_path / "again"), "oof")


def test_stopped_and_continued_it_ends_with_the_same_bits(own, train, tmp_path, monkeypatch):
    view, seen = Views.__call__, []

    def interrupted(self, patch, key, row=None):
        seen.append(key)
        if len(seen) == 300:  # beyond the trial of the policy, within the first epoch
            os.kill(os.getpid(), signal.SIGINT)
        return view(self, patch, key)

    settings = (*SHORT, write_policy(tmp_path / "views.json"))
    monkeypatch.setattr(Views, "__call__", interrupted)
    with pytest.raises(Stopped):
        train(tmp_path / "run", *settings)
    monkeypatch.undo()
    run = train(tmp_path / "run", *settings)
    for name in ("oof", "test"):
        same(own, run, name)


@pytest.mark.parametrize("step", [A.RandomCrop(16, 16, p=0.5), A.ToFloat(p=0.5)], ids=["size", "dtype"])
def test_a_policy_that_makes_no_view_is_refused_before_anything_is_written(command, slides, tiny, tmp_path, step):
    A.save(A.Compose([step]), tmp_path / "views.json")
    words = [word for setting in tiny(f"views.file={tmp_path / 'views.json'}") for word in ("--set", setting)]
    done = command("baseline", "--data", slides, "--out", tmp_path / "run", *words)
    assert (done.code, done.out) == (2, "")
    (problem,) = done.problems
    assert problem.startswith("views.file: ") and "Traceback" not in done.err
    assert not (tmp_path / "run").exists()


def test_rounds_refuse_it_before_anything_is_written(fresh, make_rounds, tmp_path):
    A.save(A.Compose([A.ToFloat(p=1)]), tmp_path / "views.json")
    with pytest.raises(UserError, match=r"views\.file: .* float32"):
        make_rounds(fresh, 1, f"views.file={tmp_path / 'views.json'}", "views.policy=standard", "pseudo.noise=file")
    assert not (fresh / "round-1").exists()


@pytest.fixture
def drawn(monkeypatch) -> list:
    """Policy and transform of all views that are made from now on."""
    made, init = [], Views.__init__

    def noted(self, policy, strength=1.0, transform=None):
        made.append((policy, (transform or {}).get("transform", {}).get("__class_fullname__")))
        init(self, policy, strength, transform)

    monkeypatch.setattr(Views, "__init__", noted)
    return made


def test_the_file_is_the_noise_of_students_while_test_views_stay(train, make_rounds, tmp_path, drawn):
    start = train(tmp_path / "run", *SHORT, "data.label_budget=56", "train.batch_size=8").path
    make_rounds(start, 1, write_policy(tmp_path / "views.json"), "views.policy=standard", "pseudo.noise=file", "train.epochs=1")
    facts = json.loads((start / "round-1" / "fold-0" / "model.json").read_text())
    assert facts["recipe"]["views"]["transform"]["transform"]["__class_fullname__"] == "Compose"
    assert {policy for policy, _ in drawn} == {"standard", "file"}


@pytest.mark.parametrize("side", ["weak", "strong"])
def test_the_file_is_a_view_of_the_pool(train, tmp_path, drawn, side):
    settings = ("views.policy=d4", "method.name=fixmatch", f"method.{side}=file", "train.samples_per_epoch=16")
    train(tmp_path / "run", *SHORT, write_policy(tmp_path / "views.json"), *settings, only=[0])
    assert ("file", "Compose") in drawn[2:]  # the first two are its trial
