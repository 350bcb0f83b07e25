import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pcam_ssl.data import writer as writing
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError


def write(path, pixels, ids, size_px=16, **columns):
    with DatasetWriter(path, size_px, source="here", source_format="test") as writer:
        writer.append(pixels, ids, "train", **columns)
    return open_dataset(path)


def test_pixels_and_columns_are_read_back_as_appended(tmp_path, make_pixels):
    pixels = make_pixels(5)
    with DatasetWriter(tmp_path / "set", 16, source="here", source_format="test") as writer:
        writer.append(pixels[:3], list("abc"), "train", labels=[0, 1, None], wsi=["s", None, "t"], x=[1, 2, 3], y=[4, 5, None])
        writer.append(pixels[3:], list("de"), ["valid", "test"])
        writer.sample_submission = ["e"]
    dataset = open_dataset(tmp_path / "set")
    assert np.array_equal(dataset.pixels, pixels)
    assert dataset.patches["id"].tolist() == list("abcde")
    assert dataset.patches["split"].tolist() == ["train", "train", "train", "valid", "test"]
    assert dataset.patches["label"].fillna(-1).tolist() == [0, 1, -1, -1, -1]
    assert dataset.patches["wsi"].fillna("?").tolist() == ["s", "?", "t", "?", "?"]
    assert dataset.patches["y"].fillna(-1).tolist() == [4, 5, -1, -1, -1]
    assert dataset.manifest["counts"]["train"] == {"tumor": 1, "normal": 1, "unlabelled": 1}
    assert dataset.manifest["n_slides"] == 2
    assert dataset.sample_submission == ["e"]


def test_digest_does_not_depend_on_how_patches_were_batched(tmp_path, make_pixels):
    pixels = make_pixels(4)
    whole = write(tmp_path / "whole", pixels, list("abcd"))
    with DatasetWriter(tmp_path / "parts", None, source="there", source_format="other") as writer:
        for patch, name in zip(pixels, "abcd", strict=True):
            writer.append(patch[None], [name], "train")
    assert open_dataset(tmp_path / "parts").digest == whole.digest


@pytest.mark.parametrize("change", [{"labels": [1, 0]}, {"wsi": ["s", "t"]}, {"x": [1, 2]}])
def test_digest_changes_with_a_core_column(tmp_path, make_pixels, change):
    plain = write(tmp_path / "plain", make_pixels(2), ["a", "b"])
    assert write(tmp_path / "changed", make_pixels(2), ["a", "b"], **change).digest != plain.digest


def test_digest_changes_with_one_pixel(tmp_path, make_pixels):
    pixels = make_pixels(2)
    plain = write(tmp_path / "plain", pixels, ["a", "b"])
    pixels[1, 3, 3, 0] ^= 1
    assert write(tmp_path / "changed", pixels, ["a", "b"]).digest != plain.digest


def test_existing_target_is_refused_and_kept(tmp_path, make_pixels):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="already exists; choose another name, or delete it first"):
        write(tmp_path / "set", make_pixels(1), ["a"])
    assert (tmp_path / "set" / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_no_files(tmp_path, make_pixels, error):
    with pytest.raises(error), DatasetWriter(tmp_path / "set", 16, source="here", source_format="test") as writer:
        writer.append(make_pixels(1), ["a"], "train")
        raise error
    assert list(tmp_path.iterdir()) == []


def test_repeated_ids_are_refused_by_name(tmp_path, make_pixels):
    with pytest.raises(UserError, match=r"here: 1 ids .* \(a\); name each patch once"):
        write(tmp_path / "set", make_pixels(3), ["a", "b", "a"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.processes
def test_the_next_writer_removes_the_folder_of_a_killed_one(tmp_path, make_pixels):
    code = (
        "import os, signal, sys, numpy as np\n"
        "from pcam_ssl.data.writer import DatasetWriter\n"
        "with DatasetWriter(sys.argv[1], 16, source='here', source_format='test') as writer:\n"
        "    writer.append(np.zeros((1, 16, 16, 3), np.uint8), ['a'], 'train')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "set"], check=False)
    assert [path.name[-5:] for path in tmp_path.iterdir()] == [".part"]
    write(tmp_path / "set", make_pixels(1), ["a"])
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_another_writer_does_not_touch_a_running_one(tmp_path, make_pixels):
    with DatasetWriter(tmp_path / "set", 16, source="here", source_format="test") as slow:
        slow.append(make_pixels(1), ["a"], "train")
        with pytest.raises(RuntimeError), DatasetWriter(tmp_path / "set", 16, source="here", source_format="test"):
            raise RuntimeError("the second stops")
        assert slow.scratch.is_dir()
    assert len(open_dataset(tmp_path / "set")) == 1


@pytest.mark.processes
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    code = (
        "import resource, sys, numpy as np\n"
        "from pcam_ssl.data.writer import DatasetWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "with DatasetWriter(sys.argv[1], 96, source='here', source_format='test') as writer:\n"
        "    for row in range(20):\n"
        "        writer.append(np.zeros((1, 96, 96, 3), np.uint8), [str(row)], 'train')\n"
    )
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "set"], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("nothing was kept: free some space and run it again")
    assert "the disk is full" in done.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_room_is_checked_before_the_first_patch(tmp_path, make_pixels, monkeypatch):
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10**8))
    with (
        pytest.raises(UserError, match=r"not enough disk space \(835 MB needed, 100 MB free\)"),
        DatasetWriter(tmp_path / "set", 16, source="here", source_format="test", expected=10**6) as writer,
    ):
        writer.append(make_pixels(1), ["a"], "train")
