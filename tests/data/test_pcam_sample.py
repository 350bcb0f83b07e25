import errno
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import FileServer
from PIL import Image

from pcam_ssl.data import connection, pcam_sample
from pcam_ssl.data.connection import TRIES
from pcam_ssl.data.importing import import_source
from pcam_ssl.data.pcam_sample import download_sample
from pcam_ssl.errors import UserError

SPLITS = {"train": (2, 300), "valid": (1, 60), "test": (1, 60)}
MOST_SENT = 70_000 + 20 * 3200 + 3 * 2**14
"""Bytes for the first 10 patches of a split: the footer (pyarrow reads 64 kB), a row group, and the rest of three blocks."""
PIXELS = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), np.uint8)


def parquet(first, rows, row_group_size=20):
    """A parquet file of patches `first` and following as uncompressed BMP (3 kB each); odd ones are tumor."""
    images = []
    for pixels in PIXELS[first : first + rows]:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "BMP")
        images.append({"bytes": buffer.getvalue(), "path": None})
    image = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({"image": image, "label": [row % 2 == 1 for row in range(first, first + rows)]})
    sink = pa.BufferOutputStream()
    pages = {
        "use_dictionary": False,
        "data_page_size": 2**13,
        "write_batch_size": 2,
        "write_statistics": False,
    }  # a page is read whole
    pq.write_table(table, sink, row_group_size=row_group_size, **pages)
    return sink.getvalue().to_pybytes()


@pytest.fixture(scope="module")
def published():
    """The files of SPLITS. The shards of a sample do not begin where they do, nor where their row groups do."""
    return {
        "/train/0000.parquet": parquet(0, 170),
        "/train/0001.parquet": parquet(170, 130),
        "/valid/0000.parquet": parquet(0, 60),
        "/test/0000.parquet": parquet(0, 60),
    }


@pytest.fixture
def server(published, monkeypatch):
    monkeypatch.setattr(connection, "BLOCK_BYTES", 2**14)
    monkeypatch.setattr(pcam_sample, "SHARD_PATCHES", 40)
    monkeypatch.setattr(pcam_sample, "BATCH_PATCHES", 7)
    monkeypatch.setattr(pcam_sample, "BUFFER_BYTES", 2**13)
    server = FileServer(published)
    yield server
    server.close()


def fetch(folder, server, patches, **options):
    return download_sample(folder, patches, server.url, SPLITS, pause_s=0, **options)


def problem(folder, server, patches=50):
    """The one line of a sample that fails."""
    with pytest.raises(UserError) as told:
        fetch(folder, server, patches)
    assert len(told.value.problems) == 1
    return str(told.value)


def imported(folder, tmp_path):
    """Ids, labels and pixels of the train split, in order."""
    dataset = import_source(folder, tmp_path / "dataset")
    train = dataset.patches.query("split == 'train'")
    return list(train["id"]), list(train["label"]), dataset.pixels[train["row"].to_numpy()]


def test_the_first_patches_of_each_split_are_imported_in_order(tmp_path, server):
    paths = fetch(tmp_path / "new" / "sample", server, 50)
    assert [path.name for path in paths] == [f"{split}-0000{n}.parquet" for split in SPLITS for n in (0, 1)]
    dataset = import_source(tmp_path / "new" / "sample", tmp_path / "dataset")
    assert dataset.patches["split"].value_counts().to_dict() == {"train": 50, "valid": 50, "test": 50}
    train = dataset.patches.query("split == 'train'")
    assert list(train["id"]) == [f"train-{row:06d}" for row in range(50)]
    assert list(train["label"]) == [row % 2 for row in range(50)]
    assert (dataset.pixels[train["row"].to_numpy()] == PIXELS[:50]).all()


def test_few_bytes_are_transferred(tmp_path, server):
    fetch(tmp_path, server, 10)
    whole = sum(map(len, server.files.values()))
    assert {path for path, _ in server.asked} == {f"/{split}/0000.parquet" for split in SPLITS}
    assert server.sent < 3 * MOST_SENT < whole / 2


def test_one_large_row_group_is_not_read_to_its_end(tmp_path, server):
    server.files["/train/0000.parquet"] = parquet(0, 170, row_group_size=170)
    fetch(tmp_path, server, 10)
    assert server.sent < 3 * MOST_SENT


def test_a_sample_goes_on_in_the_next_file(tmp_path, server):
    fetch(tmp_path / "sample", server, 230)
    ids, labels, pixels = imported(tmp_path / "sample", tmp_path)
    assert (len(ids), labels) == (230, [row % 2 for row in range(230)])
    assert (pixels == PIXELS[:230]).all()


def test_ranges_follow_redirections(tmp_path, server):
    server.files["/stored"] = server.files["/train/0000.parquet"]
    server.files["/train/0000.parquet"] = "/stored"
    fetch(tmp_path / "sample", server, 50)
    assert (imported(tmp_path / "sample", tmp_path)[2] == PIXELS[:50]).all()
    assert all(asked for path, asked in server.asked if path == "/stored")


def test_a_smaller_split_is_taken_whole_and_said(tmp_path, server, capsys):
    paths = fetch(tmp_path, server, 100)
    rows = {split: sum(pq.read_metadata(path).num_rows for path in paths if path.name.startswith(split)) for split in SPLITS}
    assert rows == {"train": 100, "valid": 60, "test": 60}
    assert "valid: has 60 patches, fewer than --sample 100; all are taken" in capsys.readouterr().err


@pytest.mark.parametrize("patches", [0, -3, True, 2.5])
def test_a_number_that_cannot_be_is_one_line(tmp_path, server, patches):
    assert problem(tmp_path, server, patches) == f"--sample {patches}: not a number of patches; give 1 or more"
    assert server.asked == []


def test_more_than_there_are_points_to_the_whole(tmp_path, server):
    assert "has 300 patches at most in a split; leave --sample out" in problem(tmp_path, server, 301)
    assert server.asked == []


def test_a_cut_connection_is_continued_in_the_same_run(tmp_path, server):
    server.breaks = TRIES - 1
    fetch(tmp_path / "sample", server, 50)
    assert (imported(tmp_path / "sample", tmp_path)[2] == PIXELS[:50]).all()


def test_an_interrupted_sample_keeps_its_shards_and_goes_on(tmp_path, server):
    server.breaks_after = 240_000  # the footer and about 55 patches
    told = problem(tmp_path / "sample", server, 100)
    assert told.startswith(f"{server.url}/train/0000.parquet: connection lost; 40 patches of train are kept: run the same command")
    assert [path.name for path in (tmp_path / "sample").iterdir()] == ["train-00000.parquet"]
    server.breaks_after, server.sent = None, 0
    kept = (tmp_path / "sample" / "train-00000.parquet").stat().st_mtime_ns
    fetch(tmp_path / "sample", server, 100)
    assert (tmp_path / "sample" / "train-00000.parquet").stat().st_mtime_ns == kept
    assert (imported(tmp_path / "sample", tmp_path)[2] == PIXELS[:100]).all()


def test_a_sample_that_is_there_is_not_asked_for_again(tmp_path, server):
    fetch(tmp_path, server, 50)
    server.asked.clear()
    assert len(fetch(tmp_path, server, 50)) == 6
    assert server.asked == []


def test_a_sample_grows_and_does_not_shrink(tmp_path, server):
    fetch(tmp_path / "sample", server, 50)
    fetch(tmp_path / "sample", server, 60)
    assert (imported(tmp_path / "sample", tmp_path)[2] == PIXELS[:60]).all()
    for fewer in (50, 30):
        assert f"sample: holds more than {fewer} patches of train; name a new folder" in problem(tmp_path / "sample", server, fewer)


def test_a_server_without_ranges_sends_nothing(tmp_path, server):
    server.ranges = False
    assert "train/0000.parquet: the server ignores ranges and would send all; " in problem(tmp_path, server)
    assert len(server.asked) == 1 and list(tmp_path.iterdir()) == []


def test_html_in_place_of_the_file_is_one_line(tmp_path, server):
    server.page = b"<html>Log in to the network</html>"
    assert "train/0000.parquet: the server sent a web page in place of the file; " in problem(tmp_path, server)
    server.page, server.files["/train/0000.parquet"] = None, b"<html>" + bytes(1000)
    assert "train/0000.parquet: is not a parquet file; " in problem(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_is_one_line(tmp_path, server, published):
    server.files["/train/0000.parquet"] = published["/train/0000.parquet"][:300_000]
    assert "train/0000.parquet: damaged or cut short (" in problem(tmp_path, server)
    server.files["/train/0000.parquet"] = b""
    assert "train/0000.parquet: is empty or cut short; " in problem(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


def test_damaged_pages_leave_no_shard(tmp_path, server, published):
    whole = published["/train/0000.parquet"]
    server.files["/train/0000.parquet"] = whole[:4] + bytes(60_000) + whole[60_004:]
    assert "train/0000.parquet: damaged or cut short (" in problem(tmp_path, server)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_while_it_is_read_is_one_line(tmp_path, server, published):
    answer = server._answer

    def changing(path, asked):
        if len(server.asked) == 5:
            server.files["/train/0000.parquet"] = published["/train/0001.parquet"]
        return answer(path, asked)

    server._answer = changing
    assert "train/0000.parquet: the server sends other bytes than were asked for; " in problem(tmp_path, server)


def test_a_file_without_patches_is_one_line(tmp_path, server):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a"] * 400}), sink)
    server.files["/train/0000.parquet"] = sink.getvalue().to_pybytes()
    assert "train/0000.parquet: damaged or cut short (no column image with bytes)" in problem(tmp_path, server)


def test_an_address_with_fewer_patches_is_told(tmp_path, server):
    server.files["/train/0001.parquet"] = parquet(170, 20)
    assert f"{server.url}: train has 190 patches, not 250; name another with --url" in problem(tmp_path, server, 250)
    server.files["/train/0001.parquet"] = parquet(170, 0)
    server.files["/train/0000.parquet"] = parquet(0, 160)
    assert f"{server.url}: train has 160 patches, not 250; name another with --url" in problem(tmp_path, server, 250)


def test_an_absent_file_and_a_busy_server_are_one_line(tmp_path, server):
    server.files.clear()
    assert "train/0000.parquet: the server answered 404 Not Found; check the address" in problem(tmp_path, server)
    server.status = 503
    assert "the server answered 503; 0 patches of train are kept: run the same command to continue" in problem(tmp_path, server)


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"cannot be reached \(ConnectionError\); 0 patches of train are kept"):
        download_sample(tmp_path, 5, "http://127.0.0.1:9", SPLITS, pause_s=0)
    with pytest.raises(UserError, match="--url ftp://x: not the address of a server"):
        download_sample(tmp_path, 5, "ftp://x", SPLITS)
    with pytest.raises(UserError, match=r"http:///x/train/0000.parquet: cannot be asked for"):
        download_sample(tmp_path, 5, "http:///x", SPLITS)


def test_a_folder_of_something_else_is_refused(tmp_path, server):
    (tmp_path / "camelyonpatch_level_2_split_train_x.h5.gz").touch()
    assert "holds camelyonpatch_level_2_split_train_x.h5.gz, which is not of a sample; name a new folder" in problem(
        tmp_path, server
    )
    assert server.asked == []


def test_files_from_elsewhere_are_not_taken_for_the_sample(tmp_path, server):
    mine = tmp_path / "train-00000.parquet"
    mine.write_bytes(parquet(0, 40))
    assert f"{mine}: is not of a sample of {server.url}; name a new folder" in problem(tmp_path, server)
    mine.write_bytes(parquet(0, 40)[:5000])
    assert f"{mine}: damaged or cut short (" in problem(tmp_path, server)
    assert server.asked == []


def test_an_unwritable_folder_is_one_line(tmp_path, server):
    (tmp_path / "file").write_text("in the way")
    assert "file/folder: cannot be written (Not a directory); name another folder" in problem(tmp_path / "file" / "folder", server)


def test_a_disk_that_fills_leaves_the_whole_shards_alone(tmp_path, server, monkeypatch):
    write, written = pq.write_table, []

    def fill(table, path):
        written.append(path)
        write(table, path)
        if len(written) == 2:
            path.write_bytes(path.read_bytes()[:1000])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pcam_sample.pq, "write_table", fill)
    assert problem(tmp_path, server, 100) == f"{tmp_path}: the disk is full; free some space and run it again"
    assert [path.name for path in tmp_path.iterdir()] == ["train-00000.parquet"]


def test_room_is_checked_before_the_transfer(tmp_path, server, monkeypatch):
    monkeypatch.setattr(pcam_sample, "check_space", lambda folder, needed: (_ for _ in ()).throw(UserError(f"needs {needed}")))
    assert problem(tmp_path, server, 10) == f"needs {30 * pcam_sample.PATCH_BYTES}"
    assert server.asked == []
