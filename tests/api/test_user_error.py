"""Errors in three parts, and calls of the API that the user can mend."""

import errno

import numpy as np
import pytest

import pcam_ssl as pcam
from pcam_ssl.errors import UserError, parts, refused


@pytest.mark.parametrize(
    ("line", "where", "what", "following"),
    [
        ("runs/a: not finished yet; run its command again", "runs/a", "not finished yet", "run its command again"),
        (
            "runs/a: begun with another recipe (seed: 0 -> 1; cv.folds: 5 -> 3); choose another --out",
            "runs/a",
            "begun with another recipe (seed: 0 -> 1; cv.folds: 5 -> 3)",
            "choose another --out",
        ),
        ("-k 0: ask for one neighbour or more", "-k 0", "ask for one neighbour or more", ""),
        (
            "recipe --set: unknown key train.epoch. Did you mean epochs? `pcam-ssl recipes show baseline` lists every key",
            "recipe --set",
            "unknown key train.epoch",
            "Did you mean epochs? `pcam-ssl recipes show baseline` lists every key",
        ),
        ("cv.folds is 1; ask for 2 or more", "", "cv.folds is 1", "ask for 2 or more"),
        ("`a: b; c`: absent; make it", "`a: b; c`", "absent", "make it"),
        ("nothing else", "", "nothing else", ""),
    ],
)
def test_a_line_is_read_as_where_what_and_next(line, where, what, following):
    assert parts(line) == (where, what, following)
    error = UserError(line, "b: other; do")
    assert (error.where, error.what, error.next) == (where, what, following)


def test_a_full_disk_is_a_user_error_and_a_bug_is_not():
    full = refused(OSError(errno.ENOSPC, "No space left on device", "runs/a/last.pt"))
    assert (full.where, full.next) == ("runs/a/last.pt", "make room or choose another place, then run the same command")
    assert refused(OSError(errno.EBADF, "Bad file descriptor")) is None


def test_what_the_system_refuses_is_raised_as_user_error(monkeypatch, slides, tmp_path):
    from pcam_ssl.data import show

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device", "sheet.png")

    monkeypatch.setattr(show, "contact_sheet", refuse)
    with pytest.raises(UserError, match=r"^sheet\.png: No space left"):
        pcam.show(slides, sheet=tmp_path / "sheet.png")


def raised(call) -> UserError:
    with pytest.raises(UserError) as caught:
        call()
    return caught.value


def test_an_unknown_keyword_names_the_nearest(slides):
    error = raised(lambda: pcam.train(slides, outt="runs/a"))
    assert (error.where, error.what) == ("train(outt=)", "no such option")
    assert error.next.startswith("Did you mean out?")


def test_an_unknown_settings_key_names_the_nearest():
    assert "Did you mean epochs?" in raised(lambda: pcam.recipe("baseline", {"train.epoch": 3})).next


def test_an_unknown_recipe_names_the_nearest():
    assert "Did you mean baseline" in raised(lambda: pcam.recipe("baselin")).next


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda slides, run: pcam.open_dataset("nowhere"), "nowhere"),
        (lambda slides, run: pcam.open_run("nowhere"), "nowhere"),
        (lambda slides, run: pcam.compare([run]), "compare"),
        (lambda slides, run: pcam.compare(run), "compare"),
        (lambda slides, run: pcam.predict(run, slides, device="gpu"), "--device gpu"),
        (lambda slides, run: pcam.predict(run, np.zeros((2, 32, 32, 3))), "predict"),
        (lambda slides, run: pcam.predict(run, np.zeros((2, 32, 16, 3), np.uint8)), "predict"),
        (lambda slides, run: pcam.predict(run, np.zeros((0, 32, 32, 3), np.uint8)), "predict"),
        (lambda slides, run: pcam.predict(run, ["gone.png"]), "gone.png"),
        (lambda slides, run: pcam.search(run), "search"),
        (lambda slides, run: pcam.embed(slides, out="new"), "embed"),
        (lambda slides, run: pcam.export(run), "export"),
        (lambda slides, run: pcam.train(slides, settings="train.epochs=3"), "settings"),
        (lambda slides, run: pcam.make_folds(slides, scheme="group"), ""),
        (lambda slides, run: pcam.scores([0, 1], [0.5]), "scores"),
        (lambda slides, run: pcam.scores([0, 2], [0.5, 0.5]), "labels"),
        (lambda slides, run: pcam.scores([0, 1], [0.5, 1.5]), "probs"),
        (lambda slides, run: pcam.scores([0, 1], ["a", "b"]), "probs"),
        (lambda slides, run: pcam.scores([None, None], [0.5, 0.1]), "labels"),
        (lambda slides, run: run.table("knnn"), "table 'knnn'"),
        (lambda slides, run: run.scores["AUROC"], "scores"),
        (lambda slides, run: run.networks[7], None),
    ],
)
@pytest.mark.trains
def test_a_call_that_cannot_be_says_where(slides, finished, call, where):
    error = raised(lambda: call(slides, finished))
    assert len(error.problems) == 1 and "\n" not in error.problems[0]
    if where is not None:
        assert error.where == where
    assert error.next or error.where or error.what


@pytest.mark.parametrize("name", ["scores.json", "run.json", "recipe.yaml", "oof.parquet", "folds.parquet"])
@pytest.mark.trains
def test_a_damaged_file_of_a_run_is_named(finished, tmp_path, name):
    import shutil

    copy = pcam.Run(shutil.copytree(finished.path, tmp_path / "copy"))
    (copy.path / name).write_bytes(b"{")
    reads = {
        "scores.json": lambda: copy.scores,
        "run.json": copy.info,
        "recipe.yaml": lambda: copy.recipe,
        "oof.parquet": lambda: copy.oof,
        "folds.parquet": lambda: copy.folds,
    }
    assert name in raised(reads[name]).problems[0]


def test_several_processes_are_asked_for_the_file_they_share(monkeypatch, slides, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert raised(lambda: pcam.predict(tmp_path / "run", slides)).what.startswith("several processes write one table")
