"""`torchrun -m pcam_ssl embed`, `predict` and `search` write what one process writes, to the bit, and go on after a kill."""

import json
import subprocess
import time

import numpy as np
import pandas as pd
import pytest
from processes import ranks
from search_run import METRIC

from pcam_ssl.cross_validation import predict
from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.models import filling
from pcam_ssl.models.network import Network
from pcam_ssl.runs import embedder
from pcam_ssl.tables import read_table

SMALL_BATCHES = "predict.batch_size=16"


@pytest.fixture(scope="module")
def patches(tmp_path_factory):
    """A dataset of several batches of a frozen backbone."""
    path = tmp_path_factory.mktemp("data") / "patches"
    write_synthetic(path, slides=10, test_slides=2, patches=40, size_px=32)
    return path


@pytest.fixture(scope="module")
def metric(slides, tiny_recipe, tmp_path_factory):
    """A finished metric run that embeds in small batches. Do not write into it."""
    from pcam_ssl.cross_validation.cross_validate import metric_train

    recipe = tiny_recipe(*METRIC, SMALL_BATCHES, "predict.random_views=1")
    return metric_train(recipe, slides, tmp_path_factory.mktemp("runs") / "metric").path


@pytest.fixture
def in_two(start):
    """in_two(word, ...): run a command in two processes; returns what rank 0 did. The other one must say nothing."""

    def in_two(*argv):
        first, second = [start(*argv, env=env) for env in ranks(2)]
        done, follower = first.wait(), second.wait()
        assert (done.code, follower.code) == (0, 0), done.err + follower.err
        assert follower.out == "" and "pcam_ssl" not in follower.err
        return done

    return in_two


def check_folders(ours, theirs) -> None:
    """Embeddings to the bit, the same ids, and nothing left over."""
    assert (ours / "embeddings.npy").read_bytes() == (theirs / "embeddings.npy").read_bytes()
    pd.testing.assert_frame_equal(*(read_table(folder / "ids.parquet")[0] for folder in (ours, theirs)))
    assert sorted(path.name for path in ours.iterdir()) == ["embedding.json", "embeddings.npy", "ids.parquet"]
    assert not list(ours.parent.glob(".*"))


def check_tables(ours, theirs) -> None:
    """Predictions to the bit, and nothing left over."""
    pd.testing.assert_frame_equal(read_table(ours)[0], read_table(theirs)[0], check_exact=True)
    assert not list(ours.parent.glob(".*"))


@pytest.mark.processes
@pytest.mark.trains
@pytest.mark.parametrize("half", [[], ["--half"]])
def test_embeddings_of_a_run(in_two, command, metric, patches, tmp_path, half):
    in_two("embed", metric, patches, "--out", tmp_path / "two", *half)
    assert command("embed", metric, patches, "--out", tmp_path / "one", *half).code == 0
    check_folders(tmp_path / "two", tmp_path / "one")


@pytest.mark.processes
def test_embeddings_of_a_frozen_backbone_and_their_scores(in_two, command, patches, tmp_path, monkeypatch):
    told = []
    for name, run in (("two", in_two), ("one", command)):
        # Each with a cache of features of its own, so that both compute them.
        monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path / f"cache-{name}"))
        options = "--model", "test_resnet", "--no-pretrained", "--knn", "--json"
        told.append(json.loads(run("embed", patches, *options, "--out", tmp_path / name).out))
    check_folders(tmp_path / "two", tmp_path / "one")
    assert told[0]["knn"] == told[1]["knn"]


@pytest.mark.processes
@pytest.mark.trains
def test_predictions_of_a_source_that_is_imported_first(in_two, command, metric, make_pixels, encode, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, patch in enumerate(make_pixels(40, 32)):
        (folder / f"{number}.png").write_bytes(encode(patch, "PNG"))
    in_two("predict", metric, folder, "--out", tmp_path / "two.parquet")
    assert command("predict", metric, folder, "--out", tmp_path / "one.parquet").code == 0
    check_tables(tmp_path / "two.parquet", tmp_path / "one.parquet")


@pytest.mark.processes
@pytest.mark.trains
def test_predictions_of_a_blend_of_head_and_neighbours(in_two, command, metric, patches, tmp_path):
    assert command("blend", metric, f"{metric}:knn", "--out", tmp_path / "blend").code == 0
    scores = []
    for name, run in (("two", in_two), ("one", command)):
        scores.append(json.loads(run("predict", tmp_path / "blend", patches, "--out", tmp_path / f"{name}.parquet", "--json").out))
    check_tables(tmp_path / "two.parquet", tmp_path / "one.parquet")
    assert scores[0]["scores"] == scores[1]["scores"]


@pytest.mark.processes
@pytest.mark.trains
def test_neighbours_of_a_source_and_the_index_they_need(in_two, command, metric, patches, tmp_path):
    run = tmp_path / "run"
    subprocess.run(["cp", "-r", metric, run], check=True)
    asked = "search", run, "--source", patches, "--json", "-k", 3
    two, index = json.loads(in_two(*asked).out), (run / "index" / "index.faiss").read_bytes()
    assert command("search", run, "--rebuild").code == 0
    assert (run / "index" / "index.faiss").read_bytes() == index
    assert two["queries"] == json.loads(command(*asked).out)["queries"]
    assert not list(run.glob(".*.part"))


def slow_down():
    """Leave time for a kill: a batch takes a fifth of a second, and is written at once."""
    plain = Network.forward

    def forward(self, pixels):
        time.sleep(0.2)
        return plain(self, pixels)

    Network.forward, filling.FLUSH_S = forward, 0.0


@pytest.mark.trains
@pytest.mark.parametrize(("verb", "target"), [("embed", "killed"), ("predict", "killed.parquet")])
def test_killed_processes_are_continued_by_one(start, command, metric, patches, tmp_path, monkeypatch, verb, target):
    words = [verb, metric, patches, "--out", tmp_path / target]
    two = [start(*words, env=env, before=slow_down).process for env in ranks(2)]
    try:
        done, until = 0, time.monotonic() + 120
        while done < 4:
            assert time.monotonic() < until and all(each.is_alive() for each in two)
            done = sum(int(np.fromfile(path, np.uint8).sum()) for path in (tmp_path / f".{target}.part").rglob("*.done-*"))
            time.sleep(0.01)
    finally:
        for each in two:
            each.kill()
            each.join()
    assert not (tmp_path / target).exists()

    batches, forward = [], Network.forward
    monkeypatch.setattr(Network, "forward", lambda self, pixels: (batches.append(len(pixels)), forward(self, pixels))[1])
    rest = command(*words)
    assert rest.code == 0, rest.err
    assert "going on with what an interrupted command has done" in rest.err
    assert 0 < len(batches) <= WORK[verb] - 4
    batches.clear()
    assert command(*words[:-1], tmp_path / target.replace("killed", "whole")).code == 0
    assert len(batches) == WORK[verb]
    check = check_folders if verb == "embed" else check_tables
    check(tmp_path / target, tmp_path / target.replace("killed", "whole"))


WORK = {"embed": 480 // 16, "predict": 2 * 2 * 480 // 16}
"""Passes through a network: a batch of `predict` has a plain and a random view, and two folds predict."""


@pytest.mark.trains
def test_a_stopped_prediction_by_neighbours_embeds_no_patch_twice(command, metric, patches, tmp_path, monkeypatch):
    assert command("blend", metric, f"{metric}:knn", "--out", tmp_path / "blend").code == 0
    votes, asked = predict.gallery_votes, []

    def stopped(*arguments):
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return votes(*arguments)

    words = "predict", tmp_path / "blend", patches, "--out"
    with monkeypatch.context() as stop:
        stop.setattr(predict, "gallery_votes", stopped)
        assert command(*words, tmp_path / "two.parquet").code == 130
    embedded, batches = [], embedder.embedding_batches
    monkeypatch.setattr(embedder, "embedding_batches", lambda *given, **how: (embedded.extend(given[3]), batches(*given, **how))[1])
    assert command(*words, tmp_path / "two.parquet").code == 0
    assert not embedded
    assert command(*words, tmp_path / "one.parquet").code == 0
    assert len(embedded) == 2 * len(pd.read_parquet(patches / "patches.parquet")) // 16
    check_tables(tmp_path / "two.parquet", tmp_path / "one.parquet")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("argv", "instead"), [(("report", "x"), ""), (("data", "import", "a", "b"), "; `data import` takes --workers N")]
)
def test_other_commands_are_refused_in_several_processes(start, argv, instead):
    first, second = [start(*argv, env=env).wait() for env in ranks(2)]
    assert (first.code, first.problems) == (2, [f"{argv[0]}: runs in one process; start it without torchrun{instead}"])
    assert (second.code, second.out, second.err) == (2, "", "")


def settings(values) -> list[str]:
    return [word for setting in values for word in ("--set", setting)]


@pytest.mark.processes
@pytest.mark.trains
def test_a_curve_of_labels(in_two, command, slides, tiny, tmp_path, monkeypatch):
    frozen = "model.freeze_backbone=true", "cv.inner_folds=2", "features.layers=last", "optim.name=lbfgs", "optim.c=0.01"
    points = []
    for name, run in (("two", in_two), ("one", command)):
        monkeypatch.setenv("PCAM_SSL_CACHE", str(tmp_path / f"cache-{name}"))
        argv = "label-curve", "baseline", "--data", slides, "--budgets", "60,all", "--seeds", "1", "--out", tmp_path / name
        (curve,) = json.loads(run(*argv, *settings(tiny(*frozen)), "--json").out)["curves"].values()
        points.append([{key: value for key, value in point.items() if key != "runs"} for point in curve["points"]])
    assert points[0] == points[1]


@pytest.mark.processes
@pytest.mark.trains
def test_units_of_work(in_two, command, slides, tiny, tmp_path):
    planned = command("plan", "smoke", "--data", slides, "--out", tmp_path / "runs", *settings(tiny("train.epochs=1")))
    (tmp_path / "units.jsonl").write_text(planned.out)
    for number in (0, 1):
        in_two("run-unit", tmp_path / "units.jsonl", number)
    assert json.loads((tmp_path / "runs" / "smoke" / "run.json").read_text())["processes"] == 2
    assert (tmp_path / "runs" / "smoke" / "scores.json").exists()


def test_a_mistake_of_the_command_line_is_told_once(start):
    first, second = (start("baseline", "--reciep", "smoke", env=env).wait() for env in ranks(2))
    assert (first.code, len(first.err.splitlines()), len(first.problems)) == (2, 1, 1)
    assert (second.code, second.out, second.err) == (2, "", "")
