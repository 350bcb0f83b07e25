import errno
import hashlib

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.files import atomic_write, check_target, digest_file, digest_text, read_json, write_json, write_text


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


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"x": [1, None, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, None, "é"]}


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", float("nan"))
    assert not (tmp_path / "a.json").exists()


def test_a_full_disk_leaves_nothing(tmp_path):
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "a") as temporary:
        temporary.symlink_to("/dev/full")
        temporary.write_bytes(b"x")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "a"))
    assert list(tmp_path.iterdir()) == []


def test_digests_are_sha256_unless_said_otherwise(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert digest_text("abc") == digest_file(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()
    assert digest_file(tmp_path / "a", "md5") == hashlib.md5(b"abc").hexdigest()


@pytest.mark.parametrize("path", ["new.parquet", "deep/er/new.parquet", "old.parquet"])
def test_a_target_that_can_be_written_is_taken(tmp_path, path):
    (tmp_path / "old.parquet").touch()
    check_target("--out", tmp_path / path, ".parquet")
    assert [each.name for each in tmp_path.iterdir()] == ["old.parquet"]


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("folder.parquet", "is a folder; name a file in it"),
        ("new.csv", "is written as parquet; name it .*new.parquet"),
        ("new", "is written as parquet; name it .*new.parquet"),
        ("file/new.parquet", "file is a file, so no folder; choose another place"),
        ("file/deeper/new.parquet", "file is a file, so no folder; choose another place"),
    ],
)
def test_a_target_that_cannot_be_written_is_told_before_any_work(tmp_path, path, problem):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"^--out .*: .*{problem}"):
        check_target("--out", tmp_path / path, ".parquet")


def test_a_target_in_a_folder_that_is_read_only_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("pcam_ssl.files.os.access", lambda path, mode: False)
    with pytest.raises(UserError, match="cannot be written; choose another place"):
        check_target("--out", tmp_path / "new.parquet", ".parquet")
