import errno
import hashlib
import os

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.files import (
    atomic_write,
    begin_flush,
    check_folder,
    check_target,
    digest_file,
    digest_text,
    misfit,
    read_json,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_old_file_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old")
    write_text(path, "µ")
    assert path.read_text(encoding="utf-8") == "µ"
    assert list(path.parent.iterdir()) == [path]


def test_json_is_read_back_as_written(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "é"]}


def test_nan_in_json_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", float("nan"))
    assert not (tmp_path / "a.json").exists()


def test_a_full_disk_leaves_no_file(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "a") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_digests_are_sha256_by_default(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_text("abc") == digest_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert digest_file(tmp_path / "a", "md5") == hashlib.md5(b"abc").hexdigest()


@pytest.mark.parametrize(
    "path", ["new.parquet", "deep/er/new.parquet", "old.parquet", "NEW.PARQUET", "a b/µ.parquet", "link/new.parquet"]
)
def test_a_target_that_can_be_written_is_accepted(tmp_path, path):
    (tmp_path / "old.parquet").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    check_target("--out", tmp_path / path, ".parquet")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["link", "old.parquet"]


BAD_PLACES = [
    ("file/new.parquet", "file is a file, so no folder; choose another place"),
    ("file/deeper/new.parquet", "file is a file, so no folder; choose another place"),
    ("dangling/new.parquet", "dangling is a file, so no folder; choose another place"),
    ("circle/new.parquet", "circle is a file, so no folder; choose another place"),
    ("/proc/new/new.parquet", r"/proc cannot be written \(.*\); choose another place"),
    ("x" * 240 + ".parquet", "is longer than \\d+ bytes; choose a shorter one"),
    ("x" * 300 + ".parquet", "File name too long; choose another place"),
    ("y" * 250 + "/deep/new.parquet", "is longer than \\d+ bytes; choose a shorter one"),
]


@pytest.fixture
def places(tmp_path):
    """A folder with one example of each target that cannot be written."""
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "dangling.parquet").symlink_to("nowhere.parquet")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").touch()
    (tmp_path / "run" / "oof.parquet").touch()
    os.mkfifo(tmp_path / "pipe.parquet")
    return tmp_path


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("folder.parquet", "is a folder; name a file in it"),
        ("", "is a folder; name a file in it"),
        ("new.csv", "is written as parquet; name it .*new.parquet"),
        ("new", "is written as parquet; name it .*new.parquet"),
        ("dangling.parquet", "is a link to nowhere.parquet, which is not there; name another file"),
        ("pipe.parquet", "is not a regular file; name another"),
        ("run/oof.parquet", "is a table that belongs to .*run.json; name another file"),
        *BAD_PLACES,
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_any_work(places, path, problem):
    with pytest.raises(UserError, match=f"^--out .*: .*{problem}"):
        check_target("--out", places / path, ".parquet")


@pytest.mark.parametrize(
    ("path", "problem"), [("file", "is a file, so no folder"), ("dangling", "is a link to nowhere"), *BAD_PLACES]
)
def test_a_folder_that_cannot_be_made_is_refused_before_any_work(places, path, problem):
    with pytest.raises(UserError, match=f"^--out .*: .*{problem}"):
        check_folder("--out", places / path)


def test_a_new_table_may_be_written_into_a_run(places):
    check_target("--out", places / "run" / "mine.parquet", ".parquet")


@pytest.mark.parametrize(
    "check", [lambda path: check_target("--out", path / "new.parquet", ".parquet"), lambda path: check_folder("--out", path)]
)
def test_a_target_in_a_read_only_folder_is_refused(tmp_path, monkeypatch, check):
    def refuse(dir):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("pcam_ssl.files.tempfile.TemporaryFile", refuse)
    with pytest.raises(UserError, match=r"cannot be written \(Permission denied\); choose another place"):
        check(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\x89PNG\xff\xfe", b"{}", b"[]", b"null", b'"a"', b'{"a": "1"}', b'{"a": true}', b"[" * 100_000]
)
def test_a_damaged_json_file_is_named_with_the_next_step(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^{path}: damaged \(.*\); train again$") as caught:
        read_json(path, {"a": int}, "train again")
    assert "\n" not in str(caught.value)


def test_an_absent_json_file_is_named_with_the_next_step(tmp_path):
    with pytest.raises(UserError, match=r"a.json: no such file; train again$"):
        read_json(tmp_path / "a.json", dict, "train again")


@pytest.mark.parametrize(
    ("value", "shape", "problem"),
    [
        ({"a": 1, "more": None}, {"a": int}, None),
        ({"a": 1.5}, {"a": int}, "a holds a number, not a whole number"),
        ({"a": 1}, {"a": (int, float)}, None),
        ({"a": None}, {"a": (int, None)}, None),
        ({"a": None}, {"a": int}, "a holds null, not a whole number"),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [int]}}, "a.b[1] holds text, not a whole number"),
        ({"a": {"b": 1}}, {"a": {"b": int, "c": int}}, "a.c is absent"),
        ({"a": 1, "b": "x"}, {str: int, "a": int}, "b holds text, not a whole number"),
        ({"a": {}}, {"a": ({"b": int}, None)}, "a.b is absent"),
        ([], {"a": int}, "the file holds a list, not an object"),
        ({}, [int], "the file holds an object, not a list"),
        ([], None, None),
    ],
)
def test_the_first_difference_from_a_shape_is_named(value, shape, problem):
    assert misfit(value, shape) == problem


@pytest.mark.parametrize("known", [True, False], ids=["with the hint", "on a system without it"])
def test_a_flush_that_begins_early_changes_nothing(tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.delattr(os, "posix_fadvise", raising=False)
    content = bytes(range(256)) * 100
    with open(tmp_path / "a", "w+b") as file:
        file.write(content)
        begin_flush(file, 0, len(content))
        file.write(content)
        begin_flush(file, len(content), 2 * len(content))
        file.seek(0)
        assert file.read() == 2 * content
