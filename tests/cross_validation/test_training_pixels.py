"""Where pixels lie while a unit trains, by `train.data`, and what computes their views, by `views.engine`."""

import numpy as np
import pytest
import torch

from pcam_ssl.cross_validation import training_pixels
from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.training_data import training_set
from pcam_ssl.cross_validation.training_pixels import for_device, training_inputs
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.folds import fold_unit
from pcam_ssl.data.pixels import DevicePixels, Pixels
from pcam_ssl.data.pool import pool_rows
from pcam_ssl.data.splits import make_folds
from pcam_ssl.device import Precision, device_memory
from pcam_ssl.distributed import World
from pcam_ssl.records import read_metrics
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
TENSOR = ("views.engine=tensor",)
ON_DEVICE = ("train.data=device",)


@pytest.fixture
def context(slides, tiny_recipe, tmp_path):
    """context("a.b=c", ..., device=CPU): the context of a run that is not begun."""

    def context(*more, device=CPU) -> RunContext:
        dataset, recipe = open_dataset(slides), for_device(tiny_recipe(*more), device)
        folds = make_folds(
            dataset.patches, scheme="grouped", n_folds=2, inner_share=0.3, label_budget=recipe.data.label_budget, seed=0
        )
        world = World(0, 1, device)
        return RunContext(recipe, dataset, folds, Run(tmp_path / "run"), world, Precision("fp32", False, "a test"), 0)

    return context


def inputs_of(context: RunContext):
    unit = fold_unit(context.folds, 0)
    return training_inputs(context, unit, training_set(context, unit))


@pytest.mark.parametrize(
    ("settings", "device", "engine"),
    [
        ((), CPU, "albumentations"),
        ((), CUDA, "tensor"),
        (("train.data=host",), CUDA, "albumentations"),
        (ON_DEVICE, CPU, "tensor"),
        (("views.engine=albumentations",), CUDA, "albumentations"),
        (("model.freeze_backbone=true",), CUDA, "albumentations"),
        (("views.policy=file", "views.transform={transform: {}}"), CUDA, "albumentations"),
    ],
)
def test_the_engine_follows_from_the_device_and_the_recipe(tiny_recipe, settings, device, engine):
    assert for_device(tiny_recipe(*settings), device).views.engine == engine


@pytest.mark.parametrize(("device", "frozen", "expected"), [(CPU, False, False), (CUDA, False, True), (CUDA, True, False)])
def test_a_backbone_that_trains_is_compiled_on_cuda(tiny_recipe, monkeypatch, device, frozen, expected):
    monkeypatch.setattr(training_pixels, "find_spec", lambda name: name)
    settings = ("model.freeze_backbone=true",) if frozen else ()
    assert for_device(tiny_recipe(*settings), device).train.compile is expected
    assert for_device(tiny_recipe("train.compile=true"), device).train.compile is True


def test_nothing_is_compiled_without_a_compiler_unless_asked(tiny_recipe, monkeypatch):
    monkeypatch.setattr(training_pixels, "find_spec", lambda name: None)
    assert for_device(tiny_recipe(), CUDA).train.compile is False


def test_on_cpu_pixels_stay_in_the_file_unless_asked(context):
    assert isinstance(inputs_of(context()), Pixels)
    sent = inputs_of(context(*TENSOR))
    assert isinstance(sent, DevicePixels) and sent.rows is None


def test_the_rows_of_the_fold_are_copied_and_no_others(context):
    setting = context(*ON_DEVICE)
    trained = setting.rows.row.to_numpy()[fold_unit(setting.folds, 0).train]
    assert inputs_of(setting).rows.tolist() == sorted(trained)


def test_where_the_method_learns_from_the_pool_that_is_copied_too(context):
    setting = context(*ON_DEVICE, "method.name=fixmatch")
    pool = pool_rows(setting.dataset, setting.folds, fold_unit(setting.folds, 0)).row
    assert len(pool) and set(pool) < set(inputs_of(setting).rows.tolist())


def test_pixels_that_do_not_fit_are_sent_and_one_line_says_so(context, monkeypatch, capsys):
    monkeypatch.setattr(training_pixels, "device_memory", lambda device: 50_000)
    pixels = inputs_of(context(device=CUDA))
    assert isinstance(pixels, DevicePixels) and pixels.rows is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train.data: fold-0 trains on ") and "50% of the device's memory" in line
    assert line.endswith("they are sent with each batch")


def test_a_device_that_others_fill_leaves_them_on_the_host(context, monkeypatch, capsys):
    def full(pixels, rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(training_pixels, "device_memory", lambda device: 10**9)
    monkeypatch.setattr(DevicePixels, "copy", full)
    assert inputs_of(context(device=CUDA)).rows is None
    assert "find no room" in capsys.readouterr().err


@pytest.mark.parametrize("more", [(), ("method.name=fixmatch",)])
def test_where_the_device_is_asked_for_what_does_not_fit_is_refused(command, slides, tiny, tmp_path, monkeypatch, more):
    monkeypatch.setattr(training_pixels, "device_memory", lambda device: 50_000)
    words = [word for setting in tiny(*ON_DEVICE, *more) for word in ("--set", setting)]
    end = command("baseline", "--data", slides, "--out", tmp_path / "run", *words)
    assert end.code == 2
    (problem,) = end.problems
    assert problem.startswith("train.data=device: fold-0 trains on ") and problem.endswith("set train.data=auto")
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_memory_of_this_machine_is_some_gigabytes():
    assert 10**8 < device_memory(CPU) < 10**14


@pytest.fixture(scope="module")
def on_device(train, tmp_path_factory):
    return train(tmp_path_factory.mktemp("device") / "run", *ON_DEVICE, "train.epochs=6", "views.policy=strong")


def losses(run) -> np.ndarray:
    return np.array([[event["train_loss"] for event in read_metrics(run.fold(k) / "metrics.jsonl")] for k in (0, 1)])


def test_the_loss_falls(on_device):
    seen = losses(on_device)
    assert (seen[:, -1] < 0.8 * seen[:, 0]).all(), seen


def test_pixels_that_are_sent_train_the_same_network_to_the_bit(train, on_device, tmp_path):
    sent = train(tmp_path / "run", *TENSOR, "train.epochs=6", "views.policy=strong")
    for name in ("oof", "test"):
        theirs, mine = read_table(on_device.path / f"{name}.parquet")[0], read_table(sent.path / f"{name}.parquet")[0]
        assert theirs.equals(mine)


def test_the_engines_train_alike(train, on_device, tmp_path):
    theirs = train(tmp_path / "run", "train.epochs=6", "views.policy=strong")
    assert losses(on_device) == pytest.approx(losses(theirs), rel=0.1)


def test_a_run_says_which_engine_it_used_and_another_is_refused(train, on_device, command, slides, tmp_path):
    assert (on_device.recipe.views.engine, on_device.recipe.train.data) == ("tensor", "device")
    words = [word for each in ("views.engine=albumentations", "train.data=auto") for word in ("--set", each)]
    end = command("baseline", "--data", slides, "--recipe", on_device.paths.recipe, "--out", on_device.path, *words)
    assert end.code == 2 and "views.engine: tensor -> " in end.problems[0]


@pytest.mark.parametrize("method", ["fixmatch", "mixmatch"])
def test_methods_that_learn_from_the_pool_train_on_the_device(train, tmp_path, method):
    settings = (f"method.name={method}", "train.epochs=1", "train.batch_size=8")
    device, host = (train(tmp_path / place, *settings, *more, only=[0]) for place, more in (("device", ON_DEVICE), ("host", ())))
    theirs, mine = (read_metrics(run.fold(0) / "metrics.jsonl")[0]["train_loss"] for run in (host, device))
    assert mine == pytest.approx(theirs, rel=0.02)
