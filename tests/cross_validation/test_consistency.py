"""The guarantees under FixMatch, mean teacher and MixMatch: blind, resumable, and the same under any processes and workers."""

import signal
import time

import numpy as np
import pandas as pd
import pytest
from processes import ranks

from pcam_ssl.cross_validation.cross_validate import baseline
from pcam_ssl.data.folds import REFIT
from pcam_ssl.errors import UserError
from pcam_ssl.recipe.loading import differences, load_recipe
from pcam_ssl.records import read_metrics
from pcam_ssl.tables import read_table

METHODS = {
    "fixmatch": ["method.name=fixmatch", "method.threshold=0.55", "train.ema_decay=0.9"],
    # Two epochs, the second at the whole weight of the consistency loss.
    "mean_teacher": ["method.name=mean_teacher", "method.decay=0.9", "method.ramp_epochs=1", "train.ema_decay=null"],
    "mixmatch": ["method.name=mixmatch", "method.ramp_epochs=1", "train.ema_decay=0.9"],
}
SGD = ["optim.name=sgd", "optim.lr=0.005", "train.batch_size=8", "data.label_budget=48"]

every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def settings(train, tmp_path_factory):
    """settings(name): a tiny run of the method on fixed folds with 48 of 80 labels."""
    folds = train(tmp_path_factory.mktemp("folds") / "run", *SGD, "train.epochs=1").paths.folds
    return lambda name: [*SGD, f"cv.folds_file={folds}", *METHODS[name]]


@pytest.fixture(scope="module")
def alone(train, settings, tmp_path_factory):
    """alone(name): the method's run in one process, trained once."""
    runs = {}

    def alone(name):
        if name not in runs:
            runs[name] = train(tmp_path_factory.mktemp("alone") / name, *settings(name))
        return runs[name]

    return alone


@pytest.fixture
def begin(start, slides, tiny, settings, tmp_path):
    """begin(name, ..., env={}): start the method's run at tmp_path/run in a process of its own."""

    def begin(name, *more, env=None):
        words = [word for setting in tiny(*settings(name), *more) for word in ("--set", setting)]
        return start("baseline", "--data", slides, "--out", tmp_path / "run", *words, env=env or {})

    return begin


def table(run, name: str) -> pd.DataFrame:
    return read_table(run.path / f"{name}.parquet")[0]


def unlabelled(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.drop(columns="label")


def turn(chosen):
    """A change of patches that turns the labels of the ids in `chosen`."""
    return lambda patches: patches.assign(label=patches.label.where(~patches.id.isin(chosen), 1 - patches.label))


@every_method
def test_a_folds_own_labels_reach_nothing_of_it(train, slides, rewrite, settings, alone, tmp_path, name):
    folds = read_table(alone(name).paths.folds)[0]
    run = train(
        tmp_path / "run", *settings(name), data=rewrite(slides, tmp_path / "set", turn(folds.id[folds.fold == 0])), only=[0]
    )
    assert (run.fold(0) / "model.safetensors").read_bytes() == (alone(name).fold(0) / "model.safetensors").read_bytes()
    for part in ("oof", "test"):
        mine, theirs = (read_table(each.fold(0) / f"{part}.parquet")[0] for each in (run, alone(name)))
        pd.testing.assert_frame_equal(unlabelled(mine), unlabelled(theirs), check_exact=True)


@every_method
def test_hidden_labels_score_and_do_nothing_else(train, slides, rewrite, settings, alone, tmp_path, name):
    folds = read_table(alone(name).paths.folds)[0]
    hidden = folds.id[~folds.visible]
    run = train(tmp_path / "run", *settings(name), data=rewrite(slides, tmp_path / "set", turn(hidden)))
    for part in ("oof", "test"):
        pd.testing.assert_frame_equal(unlabelled(table(run, part)), unlabelled(table(alone(name), part)), check_exact=True)
    assert not table(run, "oof").label.equals(table(alone(name), "oof").label)


@every_method
def test_the_pool_is_learnt_from(train, slides, rewrite, settings, alone, tmp_path, name):
    run = train(
        tmp_path / "run", *settings(name), data=rewrite(slides, tmp_path / "set", lambda rows: rows[rows.split != "test"]), only=[0]
    )
    assert (run.fold(0) / "model.safetensors").read_bytes() != (alone(name).fold(0) / "model.safetensors").read_bytes()


@every_method
def test_killed_and_continued_it_ends_with_the_same_bits(begin, alone, tmp_path, name):
    process = begin(name, "train.checkpoint_s=0.01")
    while not (tmp_path / "run" / "fold-0" / "previous.pt").exists():
        assert process.process.is_alive(), process.err.read_text()
        time.sleep(0.002)
    process.signal(signal.SIGKILL)
    process.process.join()
    assert not (tmp_path / "run" / "fold-0" / "fold.json").exists()
    assert begin(name, "train.checkpoint_s=0.01").wait().code == 0
    for part in ("oof", "test"):
        pd.testing.assert_frame_equal(
            read_table(tmp_path / "run" / f"{part}.parquet")[0], table(alone(name), part), check_exact=True
        )


@every_method
def test_processes_change_no_loss_and_no_prediction(begin, alone, tmp_path, name):
    ends = [process.wait() for process in [begin(name, env=environment) for environment in ranks(2)]]
    assert [end.code for end in ends] == [0, 0], ends
    assert (ends[1].out, ends[1].err) == ("", "")
    for k in (0, 1):
        losses = [
            [event["train_loss"] for event in read_metrics(path / f"fold-{k}" / "metrics.jsonl")]
            for path in (tmp_path / "run", alone(name).path)
        ]
        assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    theirs = read_table(tmp_path / "run" / "oof.parquet")[0]
    np.testing.assert_allclose(theirs.logit, table(alone(name), "oof").logit, rtol=0, atol=1e-4)


@every_method
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.processes
def test_workers_change_no_bit(train, settings, alone, tmp_path, name):
    run = train(tmp_path / "run", *settings(name), "train.workers=2", only=[0])
    assert (run.fold(0) / "model.safetensors").read_bytes() == (alone(name).fold(0) / "model.safetensors").read_bytes()


def test_the_refit_learns_from_a_pool_too(train, settings, alone, tmp_path):
    run = train(tmp_path / "run", *settings("mean_teacher"), "cv.refit=true")
    assert run.unit_done(REFIT)
    pd.testing.assert_frame_equal(table(run, "oof"), table(alone("mean_teacher"), "oof"), check_exact=True)


@every_method
def test_an_empty_pool_is_refused_before_anything_is_written(train, slides, rewrite, tmp_path, name):
    labelled = rewrite(slides, tmp_path / "set", lambda patches: patches[patches.label.notna()])
    with pytest.raises(UserError) as caught:
        train(tmp_path / "run", *METHODS[name], data=labelled)
    assert caught.value.problems == (
        f"method {name} learns from unlabelled patches and fold 0 has none;"
        " set data.label_budget, import a test split, or set method.name=supervised",
    )
    assert not (tmp_path / "run").exists()


def test_rank_0_prints_what_is_in_the_pool(begin):
    err = begin("fixmatch", "train.epochs=1").wait().err
    assert "fold-0: " in err and " patches without labels (16 test, " in err
    assert "learning from them is transductive" in err


@pytest.mark.parametrize("other", ["mean-teacher", "mixmatch"])
def test_the_shipped_recipes_are_alike_in_all_but_the_method(other):
    changed = differences(load_recipe("fixmatch"), load_recipe(other))
    assert changed and all(line.startswith("method.") for line in changed)
    assert load_recipe("fixmatch").method.ratio == load_recipe(other).method.ratio


@pytest.mark.trains
@pytest.mark.parametrize("recipe", ["fixmatch", "mean-teacher", "mixmatch"])
def test_the_shipped_recipes_train(recipe, slides, tmp_path):
    small = ["data.label_budget=40", "train.epochs=1", "train.batch_size=8", "model.name=test_resnet", "cv.inner_share=0.3"]
    quick = ["predict.d4=false", "score.resamples=100", "score.floor=false", "train.device=cpu"]
    assert baseline(load_recipe(recipe, [*small, *quick]), slides, tmp_path / "run").info()["status"] == "done"


def test_baseline_leaves_metric_recipes_to_their_command(train, tmp_path):
    with pytest.raises(UserError) as caught:
        train(tmp_path / "run", "method.name=metric")
    assert caught.value.problems == ("method.name is metric: use `pcam-ssl metric-train`, or --set method.name=supervised",)
