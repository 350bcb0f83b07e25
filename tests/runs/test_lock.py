"""The lock of a folder: who holds it is told, and nothing is left of a folder in which nothing was written."""

import os

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json, write_json
from pcam_ssl.runs.lock import lock_file


def test_a_second_holder_is_told_who_is_first(tmp_path):
    with lock_file(tmp_path / ".lock", "the run"), pytest.raises(UserError) as caught, lock_file(tmp_path / ".lock", "the run"):
        pass
    assert str(caught.value).startswith(f"the run: process {os.getpid()} on ")
    assert str(caught.value).endswith("is writing it; wait for it or stop it, or choose another --out")


def test_a_lock_can_be_taken_again(tmp_path):
    for _ in range(2):
        with lock_file(tmp_path / "run" / ".lock", "the run"):
            assert read_json(tmp_path / "run" / ".lock.holder.json")["pid"] == os.getpid()


def test_a_folder_in_which_nothing_was_written_is_removed(tmp_path):
    with lock_file(tmp_path / "run" / ".lock", "the run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_folder_in_which_something_was_written_stays(tmp_path):
    with lock_file(tmp_path / "run" / ".lock", "the run"):
        write_json(tmp_path / "run" / "run.json", {})
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "run.json"]


@pytest.mark.parametrize("name", ["taken", "taken/inside"])
def test_a_file_in_the_way_is_refused(tmp_path, name):
    (tmp_path / "taken").touch()
    with (
        pytest.raises(UserError, match=f"{name}: a file has that name; choose another --out"),
        lock_file(tmp_path / name / ".lock", "x"),
    ):
        pass
