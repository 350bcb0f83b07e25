import pickle
import tracemalloc
import zipfile

import pandas as pd
import pytest

from pcam_ssl.data.images import BadImage
from pcam_ssl.data.sources.listing import places_in
from pcam_ssl.data.sources.tree import FolderTree, ZipTree, stem
from pcam_ssl.errors import UserError


def make_zip(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


def test_entries_are_read_by_name_whatever_their_order(tmp_path):
    tree = ZipTree(
        make_zip(tmp_path / "a.zip", [("b/é.png", b"second"), (".hidden", b"x"), ("a.png", b"first" * 100), ("b/", b"")])
    )
    assert tree.names == ["a.png", "b/é.png"]
    assert [tree.read(name) for name in tree.names] == [b"first" * 100, b"second"]


def test_of_two_entries_of_one_name_the_last_is_read(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = make_zip(tmp_path / "a.zip", [("a.csv", b"old"), ("b", b""), ("a.csv", b"new")])
    assert ZipTree(path).read("a.csv") == b"new"


def test_images_are_read_by_another_process_from_their_places_alone(tmp_path):
    entries = [("b/é.png", b"second" * 1000), ("a.png", b"first"), ("c.png", b"third")]
    (tmp_path / "folder" / "b").mkdir(parents=True)
    for name, content in entries:
        (tmp_path / "folder" / name).write_bytes(content)
    for tree in (ZipTree(make_zip(tmp_path / "a.zip", entries)), FolderTree(tmp_path / "folder")):
        sent = pickle.dumps(tree.images(["c.png", "b/é.png"]))
        assert len(sent) < 1000
        images = pickle.loads(sent)
        assert len(images) == 2 and [images[0], images[1], images[1:][0]] == [b"third", b"second" * 1000, b"second" * 1000]


def test_an_archive_that_vanishes_is_told_and_its_images_are_not_called_bad(tmp_path):
    path = make_zip(tmp_path / "a.zip", [("a.png", b"x")])
    images = pickle.loads(pickle.dumps(ZipTree(path).images(["a.png"])))
    path.unlink()
    with pytest.raises(UserError, match=r"a\.zip: can no longer be read \(No such file or directory\); leave it where it is"):
        images[0]


def test_damaged_content_is_a_bad_image(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"content")
    path.write_bytes(path.read_bytes().replace(b"content", b"c0ntent", 1))
    with pytest.raises(BadImage, match=r"cannot be read from the archive .*Bad CRC-32"):
        ZipTree(path).read("a.png")


def test_an_entry_takes_little_memory(tmp_path):
    n = 3_000
    path = make_zip(tmp_path / "a.zip", [(f"train/{i:040x}.tif", b"") for i in range(n)])
    tracemalloc.start()
    try:
        tree = ZipTree(path)
        held = tracemalloc.get_traced_memory()[0] / n
    finally:
        tracemalloc.stop()
    assert len(tree.names) == n
    assert held < 250  # bytes; 700 as zipfile holds it


def test_places_in_is_the_first_place_or_none():
    assert places_in(pd.Series(["c", "a", "x", None], dtype="str"), pd.Series(["a", "b", "c", None], dtype="str")).tolist() == [
        2,
        0,
        -1,
        -1,
    ]


@pytest.mark.parametrize(("name", "expected"), [("train/a.b.tif", "a.b"), ("a.png", "a"), ("a/b/c", "c")])
def test_stem_is_the_file_name_without_suffix(name, expected):
    assert stem(name) == expected


def test_an_archive_that_ends_inside_an_entry_is_one_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", b"x" * 10)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\x01\x02")
    # Both sizes of the listing say more than the archive holds: zipfile raises EOFError without a word.
    content[place + 20 : place + 28] = (10_000).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(BadImage, match=r"^cannot be read from the archive \(.+\)$"):
        ZipTree(path).read("a.png")
