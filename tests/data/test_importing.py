import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from pcam_ssl.data import decoding
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.importing import import_source
from pcam_ssl.errors import UserError


def test_pixels_labels_and_slides_are_joined_on_id(tmp_path, make_kaggle, make_pixels):
    slides = tmp_path / "slides.csv"
    slides.write_text("id,wsi\n" + "".join(f"{i},slide-{i}\n" for i in "fedcba"))
    dataset = import_source(make_kaggle(), tmp_path / "set", wsi=slides)
    patches = dataset.patches.set_index("id")
    assert patches["label"].fillna(-1).to_dict() == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 0, "f": 1, "g": -1, "h": -1}
    assert patches["wsi"].fillna("?").to_dict() == {i: f"slide-{i}" for i in "abcdef"} | {"g": "?", "h": "?"}
    assert patches["split"].to_dict() == dict.fromkeys("abcdef", "train") | dict.fromkeys("gh", "test")
    expected = dict(zip("abcdefgh", make_pixels(8), strict=True))
    assert all(np.array_equal(dataset.pixels[row], expected[name]) for name, row in patches["row"].items())


@pytest.mark.processes
def test_order_of_patches_does_not_depend_on_the_workers(tmp_path, shared):
    source = shared / "kaggle-mini.zip"
    one, four = (import_source(source, tmp_path / f"set{n}", workers=n) for n in (1, 4))
    assert one.digest == four.digest
    assert one.patches.equals(four.patches)
    assert len(one) == 2090 and len(one.sample_submission) == 847


@pytest.fixture
def pictures(tmp_path, make_pixels, encode):
    """A folder of 300 PNG files; the hundredth is none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, patch in enumerate(make_pixels(300)):
        (folder / f"{number:03d}.png").write_bytes(b"hello" if number == 100 else encode(patch, "PNG"))
    return folder


@pytest.mark.processes
def test_processes_leave_out_the_images_that_one_process_leaves_out(tmp_path, pictures):
    one, three = (import_source(pictures, tmp_path / f"set{n}", skip_bad=True, workers=n) for n in (1, 3))
    assert (one.digest, len(one)) == (three.digest, 299)
    assert three.manifest["notes"] == one.manifest["notes"]
    assert sorted(path.name for path in three.path.iterdir()) == sorted(path.name for path in one.path.iterdir())


@pytest.mark.processes
def test_a_second_import_in_the_same_process_sees_its_own_images(tmp_path, make_pixels, encode):
    for seed in (1, 2):
        (tmp_path / f"pictures{seed}").mkdir()
        for number, patch in enumerate(make_pixels(100, seed=seed)):
            (tmp_path / f"pictures{seed}" / f"{number}.png").write_bytes(encode(patch, "PNG"))
        one, two = (import_source(tmp_path / f"pictures{seed}", tmp_path / f"set{seed}{n}", workers=n) for n in (1, 2))
        assert one.digest == two.digest


@pytest.mark.processes
def test_a_first_chunk_without_an_image_is_told_like_the_others(tmp_path):
    (tmp_path / "pictures").mkdir()
    for number in range(70):
        (tmp_path / "pictures" / f"{number}.png").write_bytes(b"hello")
    with pytest.raises(UserError, match="70 of 70 images are bad"):
        import_source(tmp_path / "pictures", tmp_path / "set", workers=2)


@pytest.mark.processes
def test_images_too_large_for_shared_memory_are_packed_too(tmp_path, make_pixels, encode, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 10_000)
    pixels = make_pixels(100)
    images = [encode(patch, "PNG", compress_level=0) for patch in pixels]
    assert sum(map(len, images[: 10_000 // pixels[0].size])) > 10_000
    packed = decoding.packed_in_order(iter([decoding.Chunk(0, images)]), 2, tmp_path)
    assert np.array_equal(np.concatenate([each.pixels.copy() for each in packed]), pixels)


@pytest.mark.processes
def test_pixels_are_measured_by_processes_as_by_one(tmp_path, make_pixels):
    pixels = make_pixels(300)

    def packed(workers):
        chunks = (decoding.Chunk(first, pixels[first : first + 128]) for first in (0, 128, 256))
        return [(each.rows, each.pixels.copy(), each.statistics) for each in decoding.packed_in_order(chunks, workers, tmp_path)]

    for one, two in zip(packed(1), packed(2), strict=True):
        assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])
        assert one[2].keys() == two[2].keys() and all(np.array_equal(one[2][name], two[2][name]) for name in one[2])


def test_patches_are_measured_without_further_threads(encode, make_pixels, tmp_path, monkeypatch):
    measure, seen = decoding.measure, []

    def watched(pixels):
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        return measure(pixels)

    monkeypatch.setattr(decoding, "measure", watched)
    images = [encode(patch, "PNG") for patch in make_pixels(2, 32)]
    with threadpool_limits(2):
        for _ in decoding.packed_in_order(iter([decoding.Chunk(0, images)]), 1, tmp_path):
            pass
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {2}
    assert set(seen) == {1}
    assert cv2.getNumThreads() == 1


@pytest.mark.processes
def test_processes_name_damaged_entries_of_a_zip_as_one_process_does(tmp_path, make_kaggle):
    stored = bytes(range(256))  # as long when deflated, so zip files hold it as it is
    source = make_kaggle({"train/b.tif": stored, "test/h.tif": b""})
    source.write_bytes(source.read_bytes().replace(stored, bytes(256), 1))
    problems = []
    for workers in (1, 2):
        with pytest.raises(UserError) as caught:
            import_source(source, tmp_path / "set", workers=workers)
        problems.append(caught.value.problems)
    assert problems[0] == problems[1] and "Bad CRC-32" in problems[0][0] and problems[0][1] == "test/h.tif: empty file"


@pytest.mark.processes
def test_a_killed_process_is_one_line_and_leaves_nothing(tmp_path, pictures, monkeypatch):
    def killed(slots, slot, chunk, size_px):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(decoding, "_pack_in_slot", killed)
    with pytest.raises(UserError, match=r"--workers: a decoding process was killed.*--workers 1"):
        import_source(pictures, tmp_path / "set", skip_bad=True, workers=2)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


SCRIPT = """
import pcam_ssl as pcam
print(pcam.import_dataset({source!r}, {target!r}, skip_bad=True, workers=2).digest)
"""


@pytest.mark.processes
def test_a_script_without_a_main_guard_imports_once(tmp_path, pictures):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(source=str(pictures), target=str(tmp_path / "set")))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [open_dataset(tmp_path / "set").digest] and done.stderr.count("left out") == 1


def test_all_bad_images_are_named_and_nothing_is_left(tmp_path, make_kaggle, make_pixels, encode):
    source = make_kaggle({"train/b.tif": b"hello", "train/d.tif": encode(make_pixels(1, 8)[0]), "test/h.tif": b""})
    with pytest.raises(UserError) as caught:
        import_source(source, tmp_path / "set")
    assert caught.value.problems == (
        "train/b.tif: not an image",
        "train/d.tif: is 8 px, the others are 16 px; a dataset has one size",
        "test/h.tif: empty file",
        f"{source}: 3 of 8 images are bad; fix them, or add --skip-bad to leave them out",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["kaggle.zip"]


def test_more_than_ten_bad_images_are_counted(tmp_path, make_pixels, encode):
    (tmp_path / "images").mkdir()
    for row in range(14):
        (tmp_path / "images" / f"{row:02d}.png").write_bytes(b"hello" if row < 13 else encode(make_pixels(1)[0], "PNG"))
    with pytest.raises(UserError) as caught:
        import_source(tmp_path / "images", tmp_path / "set")
    assert len(caught.value.problems) == 12
    assert caught.value.problems[-2] == "and 3 more"
    assert "13 of 14 images are bad" in caught.value.problems[-1]


def test_skip_bad_leaves_them_out_and_counts_them(tmp_path, make_kaggle, make_pixels):
    dataset = import_source(make_kaggle({"train/b.tif": b"hello", "test/h.tif": b""}), tmp_path / "set", skip_bad=True)
    assert dataset.patches["id"].tolist() == list("acdefg")
    assert np.array_equal(dataset.pixels, make_pixels(8)[[0, 2, 3, 4, 5, 6]])
    assert dataset.manifest["notes"]["bad_images"] == {"count": 2, "first": ["train/b.tif: not an image", "test/h.tif: empty file"]}


def test_a_source_of_bad_images_only_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    with pytest.raises(UserError, match=r"1 of 1 images are bad; give .* 8-bit RGB images of one size"):
        import_source(tmp_path / "a.png", tmp_path / "set", skip_bad=True)


def test_one_odd_image_at_the_start_does_not_decide_the_size(tmp_path, make_kaggle, make_pixels, encode):
    source = make_kaggle({"train/a.tif": encode(make_pixels(1, 8)[0])})
    assert import_source(source, tmp_path / "set", skip_bad=True).size_px == 16


def test_existing_target_is_refused_before_the_source_is_read(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(UserError, match="already exists"):
        import_source(tmp_path / "nowhere", tmp_path / "set")


def test_large_patches_are_read_in_small_chunks(tmp_path, make_pixels, encode):
    (tmp_path / "images").mkdir()
    pixels = make_pixels(3, 1200)
    for row, patch in enumerate(pixels):
        (tmp_path / "images" / f"{row}.png").write_bytes(encode(patch, "PNG", compress_level=1))
    assert np.array_equal(import_source(tmp_path / "images", tmp_path / "set").pixels, pixels)


@pytest.mark.processes
def test_a_killed_import_leaves_no_dataset_and_the_next_one_works(tmp_path, make_kaggle):
    source = make_kaggle()
    code = (
        "import os, signal, sys\n"
        "from pcam_ssl.data import decoding, importing\n"
        "decoding.measure = lambda pixels: os.kill(os.getpid(), signal.SIGKILL)\n"
        "importing.import_source(sys.argv[1], sys.argv[2])\n"
    )
    subprocess.run([sys.executable, "-c", code, source, tmp_path / "set"], check=False)
    assert not (tmp_path / "set").exists()
    import_source(source, tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kaggle.zip", "set"]
    assert len(open_dataset(tmp_path / "set")) == 8


def test_a_choice_of_records_is_imported_alone_with_its_own_splits(tmp_path, make_kaggle, make_pixels):
    def choose(records):
        kept = records[records.id.isin(list("bdg"))]
        return kept.assign(split=kept.split.where(kept.id != "d", "test"))

    dataset = import_source(make_kaggle(), tmp_path / "set", choose=choose)
    assert dataset.patches.set_index("id").split.to_dict() == {"b": "train", "d": "test", "g": "test"}
    assert np.array_equal(dataset.pixels, make_pixels(8)[[1, 3, 6]])
    assert dataset.sample_submission is None
