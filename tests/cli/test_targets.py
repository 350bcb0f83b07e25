"""Every option that names a file or folder to write is checked before the work."""

import shutil

import pytest

TARGETS = {
    "data audit --html": ("data", "audit", "DATASET", "--html", "FILE.html"),
    "data show --sheet": ("data", "show", "DATASET", "--sheet", "FILE.png"),
    "search --html": ("search", "RUN", "--id", "x", "--html", "FILE.html"),
    "compare --html": ("compare", "RUN", "RUN", "--html", "FILE.html"),
    "baseline --sweep --html": ("baseline", "--data", "DATASET", "--sweep", "seed=1,2", "--html", "FILE.html"),
    "predict --out": ("predict", "RUN", "DATASET", "--out", "FILE.parquet"),
    "explore --out": ("explore", "RUN", "--out", "FILE.parquet"),
    "export --onnx": ("export", "RUN", "--onnx", "FILE.onnx"),
    "export --parquet": ("export", "RUN", "--onnx", "new.onnx", "--parquet", "FILE.parquet"),
    "recipes copy": ("recipes", "copy", "smoke", "FILE.yaml"),
}
FOLDERS = {
    "baseline --out": ("baseline", "--data", "DATASET", "--out", "FILE"),
    "metric-train --out": ("metric-train", "--data", "DATASET", "--out", "FILE"),
    "pseudo-label --out": ("pseudo-label", "RUN", "--out", "FILE"),
    "baseline --sweep --out": ("baseline", "--data", "DATASET", "--sweep", "optim.lr=0.1,0.2", "--out", "FILE"),
    "blend --out": ("blend", "RUN", "RUN", "--out", "FILE"),
    "explain --out": ("explain", "RUN", "--id", "x", "--out", "FILE"),
    "embed --out": ("embed", "RUN", "DATASET", "--out", "FILE"),
    "data import": ("data", "import", "DATASET", "FILE"),
    "data synth": ("data", "synth", "FILE"),
    "demo --folder": ("demo", "--folder", "FILE"),
}


@pytest.fixture
def refused(command, slides, finished, tmp_path, monkeypatch):
    """refused(words, target): the one line that a command ends with, having written nothing."""
    monkeypatch.chdir(tmp_path)

    def refused(words, target) -> str:
        before = sorted(tmp_path.rglob("*")), sorted(finished.path.rglob("*"))
        places = {"DATASET": slides, "RUN": finished.path}
        ended = command(*(target if word.startswith("FILE") else places.get(word, word) for word in words))
        assert (ended.code, ended.out, "Traceback" in ended.err) == (2, "", False)
        assert (sorted(tmp_path.rglob("*")), sorted(finished.path.rglob("*"))) == before
        (problem,) = ended.problems
        return problem

    return refused


@pytest.mark.parametrize("words", TARGETS.values(), ids=TARGETS)
def test_a_folder_in_the_place_of_a_file_is_told_first(refused, tmp_path, words):
    target = tmp_path / next(word for word in words if word.startswith("FILE"))
    target.mkdir()
    assert refused(words, target).endswith(f"{target}: is a folder; name a file in it")


@pytest.mark.parametrize("words", [*TARGETS.values(), *FOLDERS.values()], ids=[*TARGETS, *FOLDERS])
def test_a_file_in_the_place_of_a_folder_is_told_first(refused, tmp_path, words):
    (tmp_path / "file").touch()
    target = tmp_path / "file" / next(word for word in words if word.startswith("FILE"))
    assert f"{tmp_path / 'file'} is a file, so no folder" in refused(words, target)


@pytest.mark.parametrize("name", ["report.html", "model-card.md"])
def test_a_report_that_cannot_be_written_is_told_first(command, finished, tmp_path, name):
    run = shutil.copytree(finished.path, tmp_path / "run", ignore=shutil.ignore_patterns("report.html", "model-card.md"))
    (run / name).mkdir()
    ended = command("report", run)
    assert ended.problems == [f"report {run / name}: is a folder; name a file in it"]
    assert [each.name for each in run.glob("*.html")] + [each.name for each in run.glob("*.md")] == [name]


def test_a_line_break_in_a_name_makes_no_second_line(command, tmp_path):
    assert command("data", "show", tmp_path / "a\nb").problems == [
        f"{tmp_path}/a b: no such dataset; make it with `pcam-ssl data import SOURCE '{tmp_path}/a b'`"
    ]


def test_a_path_that_is_no_utf_8_can_be_told(command, slides, tmp_path):
    odd = tmp_path / "odd\udcff"
    odd.symlink_to(slides)
    ended = command("data", "show", odd)
    assert (ended.code, ended.err) == (0, "")
    assert "odd\\udcff" in ended.out


def test_rounds_are_not_put_into_a_folder_of_something_else(command, finished, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    (problem,) = command("pseudo-label", finished.path, "--out", tmp_path / "mine").problems
    assert problem.startswith(f"{tmp_path / 'mine'}: holds notes.txt, ")
    assert [each.name for each in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("search", "RUN", "--id", "x", "-k", "0"), "-k 0"),
        (("search", "RUN", "--id", "x", "-k", "-1"), "-k -1"),
        (("blend", "RUN", "RUN", "--out", "b", "--max-correlation", "nan"), "--max-correlation nan"),
        (("blend", "RUN", "RUN", "--out", "."), "--out ."),
        (("report", "RUN", "--sensitivity", "inf"), "--sensitivity inf"),
        (("data", "download", "pcam", "folder", "--url", "file:///etc/passwd"), "--url file:///etc/passwd"),
        (("data", "download", "pcam", "folder", "--url", ""), "--url "),
        (("baseline", "--data", "DATASET", "--recipe", ""), "--recipe "),
    ],
)
def test_a_value_that_cannot_be_is_told_first(refused, words, names):
    assert refused(words, None).startswith(f"{names}: ")


@pytest.mark.parametrize("words", [("--slides", 10**12), ("--seed", 10**30), ("--stain-shift", "nan"), ("--stain-shift", "inf")])
def test_slides_without_bound_are_not_drawn(command, tmp_path, words):
    ended = command("data", "synth", tmp_path / "new", *words)
    assert (ended.code, len(ended.problems)) == (2, 1) and ended.problems[0].startswith(f"{words[0]}: ")
    assert list(tmp_path.iterdir()) == []
