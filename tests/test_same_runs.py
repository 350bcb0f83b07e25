"""What `scripts/same_runs.py compare` calls a difference, on folders written by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

SCRIPTS = Path(__file__).parents[1] / "scripts"
FRAME = pd.DataFrame({"id": ["a", "b"], "label": pd.array([1, None], dtype="Int8"), "prob": [0.25, np.nan]})
PAGE = "<html><head><style>p {{color: red}}</style></head><body><h1>Report</h1><p>AUROC <b>{score}</b> out\n of fold</p>{more}</body></html>"
TABLE = "<table><tr><th>score</th></tr><tr><td>0.9</td></tr></table><svg></svg><img src='data:image/png;base64,AAAA'>"


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import same_files
        import same_runs
        import start_times

        yield {"files": same_files, "runs": same_runs, "times": start_times}


@pytest.fixture
def sides(tmp_path) -> list[Path]:
    """Two folders, each of which says that it was made by a package of its own."""
    folders = [tmp_path / "before", tmp_path / "after"]
    for folder in folders:
        folder.mkdir()
        facts = {"folder": str(folder), "package": f"/trees/{folder.name}", "commands": [{"exit": 0, "seconds": len(folder.name)}]}
        (folder / "made.json").write_text(json.dumps(facts))
    return folders


@pytest.fixture
def told(scripts, sides):
    """told(name, write, before, after): (kind, text) of each difference after `write(path, value)` on each side."""

    def told(name: str, write, *values) -> list[tuple[str, str]]:
        for folder, value in zip(sides, values, strict=True):
            write(folder / name, value)
        return [(each.kind, each.text) for each in scripts["files"].compare_folders(*sides)]

    return told


def text(path: Path, value: str) -> None:
    path.write_text(value, encoding="utf-8")


def tree(path: Path, value) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def table(path: Path, frame: pd.DataFrame, notes: dict[str, str] | None = None) -> None:
    """A parquet file with the metadata that the package writes."""
    made = pa.Table.from_pandas(frame, preserve_index=False)
    notes = {f"pcam_ssl.{key}": value for key, value in (notes or {}).items()}
    pq.write_table(made.replace_schema_metadata({**made.schema.metadata, **notes}), path)


def test_folders_that_differ_in_times_and_places_alone_are_the_same(told, sides):
    facts = [
        {"begun": side.name, "dataset": f"{side}/slides", "argv": [f"/trees/{side.name}/__main__.py", "x"], "score": float("nan")}
        for side in sides
    ]
    assert told("run.json", tree, *facts) == []


def test_places_and_times_within_texts_and_keys_are_no_difference(told, sides):
    hour = iter(("09", "17"))
    assert told("a.txt", text, *(f"{side}/slides, begun 2026-01-02T{next(hour)}:04:05+0000" for side in sides)) == []
    assert told("a.json", tree, *({str(side): 1} for side in sides)) == []


def test_stopped_clocks_show_the_same_time_and_leave_all_else(scripts, tmp_path):
    tree(tmp_path / "run.json", {"begun": "2026-01-02", "seed": 3})
    text(tmp_path / "metrics.jsonl", '{"step": 8, "seconds": 2.5e-05}\n{"step": 9, "seconds": 4}\n')
    scripts["runs"].stop_clocks(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text()) == {"begun": scripts["runs"].CLOCK, "seed": 3}
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 8, "seconds": 0.5}\n{"step": 9, "seconds": 0.5}\n'


def test_a_file_on_one_side_is_told(scripts, sides):
    text(sides[0] / "old.txt", "")
    text(sides[1] / "new.txt", "")
    assert [(each.file, each.text) for each in scripts["files"].compare_folders(*sides)] == [
        ("old.txt", "only before"),
        ("new.txt", "only after"),
    ]


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        (FRAME.assign(prob=[np.nextafter(0.25, 1), np.nan]), "column prob: 1 of 2 values differ"),
        (FRAME.assign(label=pd.array([1, 0], dtype="Int8")), "column label: 1 of 2 values differ"),
        (FRAME.assign(prob=FRAME.prob.astype("float32")), "columns "),
        (FRAME[:1], "2 rows -> 1"),
    ],
)
def test_a_table_is_compared_to_the_bit(told, changed, part):
    [(kind, said)] = told("oof.parquet", table, FRAME, changed)
    assert kind == "data" and part in said


def test_metadata_of_a_table_counts_but_for_the_package_version(told):
    sides = [{"round": number, "package_version": number} for number in ("1", "2")]
    [(kind, said)] = told("oof.parquet", lambda path, notes: table(path, FRAME, notes), *sides)
    assert kind == "data" and said == "metadata.round: 1 -> 2"


@pytest.mark.parametrize(("old", "new"), [(0.1, 0.10000000000000002), (1, 1.0), (0.0, -0.0), (None, False), ([1], [1, 2])])
def test_a_number_in_json_is_data(told, old, new):
    found = told("scores.json", tree, {"auroc": {"score": old}}, {"auroc": {"score": new}})
    assert [kind for kind, _ in found] == ["data"]


def test_a_key_on_one_side_is_data(told):
    assert told("scores.json", tree, {"a": 1}, {"b": 1}) == [("data", "a: only before"), ("data", "b: only after")]


def test_a_sentence_in_json_may_change_its_words_but_not_its_numbers(told):
    old = {"note": "3 slides are in two folds"}
    assert [kind for kind, _ in told("a.json", tree, old, {"note": "two folds share 3 slides"})] == ["words"]
    assert "data" in [kind for kind, _ in told("a.json", tree, old, {"note": "two folds share 4 slides"})]


def test_lines_of_metrics_are_compared_without_their_seconds(told):
    line = '{{"step": {}, "seconds": {}}}\n'
    assert told("metrics.jsonl", text, line.format(8, 1), line.format(8, 2)) == []
    assert told("metrics.jsonl", text, line.format(8, 1), line.format(9, 1)) == [("data", "[0].step: 8 -> 9")]


def test_a_comment_in_a_recipe_is_no_difference_and_a_key_is(told):
    assert told("recipe.yaml", text, "# 0.1\nseed: 0\n", "# 0.2\nseed: 0\n") == []
    assert told("recipe.yaml", text, "seed: 0\n", "seed: 1\n") == [("data", "seed: 0 -> 1")]


def test_arrays_and_tensors_are_compared_to_the_bit(told):
    old, new = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    new[1, 2] = 1e-30
    [(kind, said)] = told("embeddings.npy", np.save, old, new)
    assert kind == "data" and "1 of 6 values differ, first at 5" in said
    found = told("model.safetensors", lambda path, array: save_file({"head": array}, path), old, new)
    assert ("data", "tensor head: 1 of 6 values differ, first at 5: 0.0 -> 1e-30, at most by 1e-30") in found


def test_other_files_are_compared_byte_by_byte(told):
    assert told("submission.csv", text, "id,label\n", "id,label\r\n") == [("data", "bytes differ, 9 -> 10")]


def test_a_page_is_compared_by_what_is_seen(told):
    old = PAGE.format(score=0.9, more="")
    new = old.replace("red", "blue").replace("out\n of", "out of").replace("<body>", "<body class='wide'>")
    assert told("report.html", text, old, new) == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (("<b>0.9", "<b>0.8"), "numbers: gone '0.9'; new '0.8'"),
        (("<tr><td>0.9</td></tr>", ""), "rows of tables, 2 -> 1: gone '0.9'"),
        (("<svg></svg>", ""), "charts: 1 -> 0"),
        (("AAAA", "AAAB"), "pictures, 1 -> 1: 1 are others"),
    ],
)
def test_what_a_page_shows_is_told_apart_from_its_words(told, change, part):
    page = PAGE.format(score=0.9, more=TABLE)
    assert ("content", part) in told("report.html", text, page, page.replace(*change))


def test_words_are_told_apart_and_shown_as_a_diff(scripts, sides, capsys):
    for side, word in zip(sides, ("promised", "out of fold"), strict=True):
        text(side / "shown.txt", f"AUROC  {word}\n0.9\n")
    assert scripts["runs"].show(scripts["files"].compare_folders(*sides), words=True) == 0
    printed = capsys.readouterr().out
    assert "-AUROC promised" in printed and "+AUROC out of fold" in printed


def test_a_line_that_looks_like_the_head_of_a_diff_is_told(told):
    assert told("shown.txt", text, "Verdict\n-------\n", "Verdict\n") == [("words", "1 lines gone, 0 new")]


@pytest.mark.parametrize(("name", "code"), [("scores.csv", 1), ("scores.md", 0)])
def test_the_exit_code_is_1_where_data_differ(scripts, sides, name, code):
    for side in sides:
        text(side / name, side.name)
    assert scripts["runs"].show(scripts["files"].compare_folders(*sides), words=False) == code


def test_a_damaged_file_is_a_difference(told):
    [(kind, said)] = told("oof.parquet", text, "PAR1", "PAR2")
    assert kind == "data" and "cannot be read" in said


def test_times_are_compared_by_their_medians(scripts, monkeypatch):
    spent = iter([9, 9, 3, 2, 2, 3, 3, 2])  # the first turn is not counted; who begins changes
    monkeypatch.setattr(scripts["times"], "cpu_seconds", lambda *_: next(spent))
    line = scripts["times"].row("--help", (), [Path("before"), Path("after")], Path(), turns=3)
    assert line == "| --help | 2.000 | 3.000 | 1.500 | 1.50 to 1.50 |"
