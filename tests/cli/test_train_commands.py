"""`pcam-ssl baseline` from the command line: what it prints, and bad input as one line and exit code 2."""

import json
import subprocess
import sys

import numpy as np
import pytest

from pcam_ssl.data.dataset import open_dataset


@pytest.fixture
def baseline(command, slides, tiny, tmp_path):
    """baseline("a.b=c", ..., data=..., words=[...]): a tiny run at tmp_path/run in this process."""

    def baseline(*more, data=None, words=()):
        settings = [word for setting in tiny(*more) for word in ("--set", setting)]
        return command("baseline", "--data", data or slides, "--out", tmp_path / "run", *settings, *words)

    return baseline


@pytest.fixture
def refused(baseline, tmp_path):
    """refused(...): the problems of a run that is refused before anything is written."""

    def refused(*more, **options) -> list[str]:
        finished = baseline(*more, **options)
        assert finished.code == 2, finished
        assert "Traceback" not in finished.err
        assert finished.out == ""
        assert not (tmp_path / "run").exists()
        return finished.problems

    return refused


def change_labels(patches, value):
    return patches.assign(label=patches.label.mask(patches.label.notna(), value))


@pytest.mark.trains
def test_scores_go_to_stdout_and_talk_to_stderr(baseline, tmp_path):
    finished = baseline()
    assert finished.code == 0
    assert finished.out.startswith("Out of fold, folds grouped by slides: 80 patches")
    for name in ("scores.json", "oof.parquet", "test.parquet", "submission.csv"):
        assert str(tmp_path / "run" / name) in finished.out
    assert "2 folds grouped by slides, on cpu in fp32 (asked for)" in finished.err


@pytest.mark.trains
def test_json_is_scores_json(baseline, tmp_path):
    finished = baseline(words=["--json"])
    assert json.loads(finished.out) == json.loads((tmp_path / "run" / "scores.json").read_text())


@pytest.mark.trains
def test_one_fold_prints_no_scores(baseline):
    finished = baseline(words=["--fold", 1])
    assert (finished.code, finished.out) == (0, "")
    assert "folds 0 are not trained yet" in finished.err


@pytest.mark.trains
def test_the_dataset_may_come_from_the_environment(command, slides, tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("PCAM_SSL_DATA", str(slides))
    settings = [word for setting in tiny("train.epochs=1") for word in ("--set", setting)]
    assert command("baseline", "--out", tmp_path / "run", *settings, "--fold", 0).code == 0


def test_bare_baseline_says_which_command_makes_its_data(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    finished = command("baseline", "--set", "train.device=cpu")
    assert finished.code == 2
    assert finished.problems == ["data/pcam: no such dataset; make it with `pcam-ssl data import SOURCE data/pcam`"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "beginning"),
    [
        ("train.epoch=3", "recipe baseline: unknown key train.epoch. Did you mean epochs?"),
        ("model.name=resnt34", "model.name: timm has no backbone resnt34. Did you mean resnet34"),
        ("train.precision=fp16", "train.precision: fp16 needs a CUDA device, this is cpu; use bf16, fp32 or auto"),
        ("cv.folds=11", "10 slides cannot make 11 folds; set cv.folds to 10 or less, or import more slides"),
        ("cv.folds_file=nowhere.parquet", "nowhere.parquet: no such file"),
        ("data.label_budget=1000", "data.label_budget is 1000, but there are 80 labels to train on; ask for 2 to that many"),
    ],
)
def test_a_recipe_that_cannot_be(refused, setting, beginning):
    (problem,) = refused(setting)
    assert problem.startswith(beginning)


def test_two_wrong_keys_are_two_lines(refused):
    assert len(refused("train.epoch=3", "train.batch=3")) == 2


def test_weights_out_of_reach(refused, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    (problem,) = refused("model.name=resnet18", "model.pretrained=true")
    assert problem.startswith("model.name: weights of resnet18 cannot be reached (")
    assert "set model.pretrained=false to train from scratch" in problem


def test_a_backbone_that_cannot_take_the_size(refused):
    (problem,) = refused("model.name=test_vit", "model.image_size=50")
    assert problem.startswith("model.image_size: test_vit cannot take 50 px (")


@pytest.mark.trains
def test_a_mended_command_starts_where_a_refused_one_wrote_nothing(baseline):
    assert baseline("model.name=test_resnt").code == 2
    assert baseline("train.epochs=1").code == 0


@pytest.mark.parametrize("fold", [2, -1])
def test_a_fold_out_of_range(refused, tmp_path, fold):
    assert refused(words=["--fold", fold]) == [f"--fold {fold}: {tmp_path}/run has folds 0 to 1"]


def test_no_dataset(refused, tmp_path):
    assert refused(data=tmp_path / "nowhere") == [
        f"{tmp_path}/nowhere: no such dataset; make it with `pcam-ssl data import SOURCE {tmp_path}/nowhere`"
    ]


@pytest.mark.parametrize("value", [0, 1])
def test_one_class_only(refused, slides, rewrite, tmp_path, value):
    data = rewrite(slides, tmp_path / "set", lambda patches: change_labels(patches, value))
    (problem,) = refused(data=data)
    assert "cannot make 2 folds; set cv.folds lower, or import more" in problem


def test_one_slide_only(refused, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "set", lambda patches: patches.assign(wsi="the-slide"))
    (problem,) = refused(data=data)
    assert "all 80 labelled patches are of one slide (the-slide), so no fold is possible; import more slides" in problem


def test_slides_known_for_a_part(refused, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "set", lambda patches: patches.assign(wsi=patches.wsi.mask(patches.row < 3)))
    (problem,) = refused(data=data)
    assert problem.startswith("slide ids are known for 77 of 80 labelled patches; import again")


def test_no_labels(refused, slides, rewrite, tmp_path):
    data = rewrite(slides, tmp_path / "set", lambda patches: patches.assign(label=None))
    assert refused(data=data) == [
        "the dataset has no labelled patches in its train and valid splits; import it again with its labels"
    ]


@pytest.mark.trains
def test_an_empty_test_split_is_said_and_the_run_finishes(baseline, slides, rewrite, tmp_path):
    finished = baseline("train.epochs=1", data=rewrite(slides, tmp_path / "set", lambda patches: patches[patches.split != "test"]))
    assert finished.code == 0
    assert "there is no test split, so no test.parquet and no submission.csv will be written" in finished.err
    assert (tmp_path / "run" / "oof.parquet").exists()
    assert not (tmp_path / "run" / "test.parquet").exists()


@pytest.mark.trains
def test_a_loss_that_is_not_finite(baseline):
    finished = baseline("optim.name=sgd", "optim.lr=1e30")
    assert finished.code == 2
    (problem,) = finished.problems
    assert problem.startswith("training stopped: the loss of step ")
    assert "lower optim.lr" in problem
    assert "Traceback" not in finished.err


@pytest.fixture
def begun(baseline):
    assert baseline("train.epochs=1", words=["--fold", 0]).code == 0


@pytest.mark.trains
def test_a_run_of_another_recipe(begun, baseline):
    finished = baseline("train.epochs=1", "optim.lr=0.5")
    assert finished.code == 2
    assert "begun with another recipe (optim.lr: 0.003 -> 0.5); choose another --out, or delete that folder" in finished.problems[0]


@pytest.mark.trains
def test_a_run_of_another_dataset(begun, baseline, slides, rewrite, tmp_path):
    finished = baseline("train.epochs=1", data=rewrite(slides, tmp_path / "set", lambda patches: patches.iloc[1:]))
    assert finished.code == 2
    assert "begun on dataset" in finished.problems[0]


@pytest.mark.trains
def test_a_run_of_another_command(begun, command, slides, tmp_path):
    finished = command(
        "metric-train", "--data", slides, "--out", tmp_path / "run", "--set", "train.device=cpu", "--set", "cv.folds=2"
    )
    assert finished.code == 2
    assert "a run of `pcam-ssl baseline`, not of `pcam-ssl metric-train`" in finished.problems[0]


def test_a_folder_that_is_no_run(baseline, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").touch()
    finished = baseline()
    assert finished.problems == [f"{tmp_path}/run: holds something that is no run; choose another --out"]


def test_a_file_in_the_way(baseline, tmp_path):
    (tmp_path / "run").touch()
    assert baseline().problems == [f"--out {tmp_path}/run: is a file, so no folder; choose another place"]


@pytest.mark.trains
def test_a_slide_in_two_folds_of_a_folds_file_is_a_leak(baseline, begun, slides, tmp_path):
    from pcam_ssl.tables import read_table, write_table

    frame, notes = read_table(tmp_path / "run" / "folds.parquet")
    frame.loc[0, "fold"] = 1 - frame.fold[0]
    write_table(tmp_path / "torn.parquet", frame, notes)
    finished = baseline("train.epochs=2", f"cv.folds_file={tmp_path}/torn.parquet", words=["--out", tmp_path / "other"])
    assert finished.code == 3
    assert "is in 2 folds" in finished.problems[0]


def test_conflicting_copies(refused, slides, rewrite, tmp_path):
    from pcam_ssl.data.writer import DatasetWriter

    dataset = open_dataset(slides)
    rows = dataset.patches[dataset.patches.label.notna()]
    with DatasetWriter(tmp_path / "set", dataset.size_px, source="copies", source_format="test") as writer:
        pixels = np.asarray(dataset.pixels)[rows.row.to_numpy()]
        writer.append(pixels, rows.id.array, "train", labels=rows.label.array, wsi=rows.wsi.array)
        writer.append(pixels[:1], ["copy"], "train", labels=[1 - rows.label.iloc[0]], wsi=rows.wsi.iloc[0])
    (problem,) = refused(data=tmp_path / "set")
    assert "2 labelled patches are exact duplicates" in problem


@pytest.fixture
def small_disk(tmp_path):
    """A disk of half a megabyte: room to begin a run, but not for its weights."""
    path = tmp_path / "small"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", path], capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.trains
def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(baseline, small_disk):
    finished = baseline(words=["--out", small_disk / "run"])
    assert finished.code == 2
    (problem,) = finished.problems
    assert problem.startswith(f"{small_disk}/run/fold-0/")
    assert "No space left on device; make room or choose another place, then run the same command" in problem
    assert [
        path.name for path in (small_disk / "run" / "fold-0").iterdir() if path.suffix in (".part", ".safetensors", ".pt")
    ] == []


@pytest.mark.trains
def test_room_made_the_same_command_goes_on(baseline, small_disk):
    assert baseline(words=["--out", small_disk / "run"]).code == 2
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    assert baseline(words=["--out", small_disk / "run"]).code == 0


@pytest.mark.trains
def test_ctrl_c_outside_of_training_says_how_to_go_on(baseline, monkeypatch, tmp_path):
    from pcam_ssl.cross_validation import cross_validate as cross_validation

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cross_validation, "aggregate_run", interrupt)
    finished = baseline("train.epochs=1")
    assert finished.code == 130
    assert finished.problems == [f"{tmp_path}/run: stopped; what is finished is kept, and the same command goes on from there"]


@pytest.mark.processes
def test_the_module_is_the_command():
    words = [sys.executable, "-m", "pcam_ssl", "recipes", "show", "smok"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("pcam-ssl: --recipe smok: no shipped recipe has that name. Did you mean smoke?")
