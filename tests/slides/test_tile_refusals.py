"""What `data tile` refuses: one line that says what, where and the next step; exit 2, and nothing is left."""

import json
import resource
import subprocess
import sys

import numpy as np
import pytest
from painted_slides import GLASS, places, write_slide

from pcam_ssl.errors import parts

pytest.importorskip("openslide", reason="OpenSlide is not installed (extra: slides)")
PIXELS = places(1024, 512)


@pytest.fixture
def slide(tmp_path):
    return write_slide(tmp_path / "a.tif", [PIXELS])


@pytest.fixture
def refused(tmp_path, command):
    """refused(slide, ..., option, ...): the lines of a command that is refused; nothing but its input may be there afterwards."""

    def run(*words):
        before = sorted(path.name for path in tmp_path.iterdir())
        done = command("data", "tile", *words[:1], tmp_path / "set", "--size", 32, "--mpp", 1.0, *words[1:])
        assert (done.code, done.out) == (2, "")
        assert all(line.startswith("pcam-ssl: ") for line in done.err.splitlines()), done.err
        assert sorted(path.name for path in tmp_path.iterdir()) == before
        assert all(parts(line).where and parts(line).what and parts(line).next for line in done.problems)
        return done.problems

    return run


def test_not_a_slide(tmp_path, refused):
    (tmp_path / "a.svs").write_text("hello")
    (line,) = refused(tmp_path / "a.svs")
    assert line.startswith(f"{tmp_path}/a.svs: not a slide that can be read, or cut short; name an SVS")


def test_no_such_file(tmp_path, refused):
    assert refused(tmp_path / "a.svs") == [f"{tmp_path}/a.svs: no such file; name a whole slide"]


@pytest.mark.parametrize(("ome", "share"), [(False, 0.02), (False, 0.5), (False, 0.95), (True, 0.02), (True, 0.5)])
def test_cut_short(tmp_path, refused, ome, share):
    slide = write_slide(tmp_path / "a.tif", [PIXELS, PIXELS[::2, ::2]], ome=ome)
    whole = slide.read_bytes()
    slide.write_bytes(whole[: int(len(whole) * share)])
    (line,) = refused(slide)
    assert line.startswith(f"{slide}: ") and "cut short" in line


def test_damaged_in_the_middle(slide, refused, tmp_path):
    """The low level, where tissue is looked for, is whole; level 0 is not: it is found while tiles are cut."""
    path = write_slide(tmp_path / "b.tif", [PIXELS, PIXELS[::8, ::8]], compression="jpeg")
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 3 + 20_000] = bytes(20_000)
    path.write_bytes(content)
    (line,) = refused(path)
    assert "of level 0" in line and line.endswith("; it is damaged or cut short: copy it again")


def test_no_microns_per_pixel(tmp_path, refused, command):
    path = write_slide(tmp_path / "a.tif", [PIXELS], mpp=None)
    assert refused(path) == [f"{path}: does not say its microns per pixel; give those of level 0 with --assume-mpp"]
    done = command("data", "tile", path, tmp_path / "set", "--size", 32, "--mpp", 1, "--assume-mpp", 1)
    assert done.code == 0 and "512 patches" in done.out


def test_coarser_than_wanted(slide, refused):
    (line,) = refused(slide, "--mpp", 0.5)
    assert line == f"{slide}: its finest level has 1 um/px, coarser than --mpp 0.5; give --mpp 1"


def test_no_tissue(tmp_path, refused):
    path = write_slide(tmp_path / "a.tif", [np.full((512, 1024, 3), GLASS, np.uint8)])
    assert refused(path) == [f"{path}: none of 512 tiles holds 50% tissue; lower --tissue, or leave the slide out"]


def test_smaller_than_a_tile(tmp_path, refused):
    path = write_slide(tmp_path / "a.tif", [PIXELS[:20]])
    (line,) = refused(path)
    assert line == f"{path}: has 1,024 x 20 px at 1 um/px, less than a patch of 32 px; give a smaller --size"


def test_two_slides_of_one_name(slide, tmp_path, command):
    (tmp_path / "more").mkdir()
    other = write_slide(tmp_path / "more" / "a.ome.tif", [PIXELS], ome=True)
    done = command("data", "tile", slide, other, tmp_path / "set")
    assert done.code == 2 and not (tmp_path / "set.part").exists()
    assert done.problems == [f"a: 2 slides have this name ({slide}, {other}); rename one, because patches carry it"]


def test_the_problems_of_all_slides_come_at_once(slide, tmp_path, command):
    (tmp_path / "b.svs").write_text("hello")
    bare = write_slide(tmp_path / "c.tif", [PIXELS], mpp=None)
    done = command("data", "tile", slide, tmp_path / "b.svs", bare, tmp_path / "set", "--mpp", 1)
    assert done.code == 2 and [line.partition(":")[0] for line in done.problems] == [f"{tmp_path}/b.svs", str(bare)]
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.part").exists()


def test_the_dataset_exists(slide, tmp_path, command):
    (tmp_path / "set").mkdir()
    done = command("data", "tile", slide, tmp_path / "set")
    assert done.code == 2
    assert done.problems == [f"{tmp_path}/set: already exists; choose another name, or delete it first"]


@pytest.mark.parametrize(
    ("name", "ring", "said"),
    [
        ("Tumor", [[2000, 0], [2100, 0], [2100, 50]], "1 of 1 outlines lie outside a.tif (1,024 x 512 px); give the annotations"),
        ("Lymph", [[0, 0], [100, 0], [100, 50]], "unknown classes Lymph (1); say which are tumor: --classes 'Lymph=0'"),
    ],
)
def test_annotations_that_do_not_hold(slide, tmp_path, refused, name, ring, said):
    feature = {"geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {"classification": {"name": name}}}
    (tmp_path / "a.geojson").write_text(json.dumps([feature]))
    (line,) = refused(slide, "--annotations", tmp_path)
    assert line.startswith(f"{tmp_path}/a.geojson: {said}")


def test_annotations_of_another_slide(slide, tmp_path, refused):
    (tmp_path / "b.geojson").write_text("[]")
    (line,) = refused(slide, "--annotations", tmp_path / "b.geojson")
    assert "is of no slide here (a, ...)" in line
    (line,) = refused(slide, "--annotations", tmp_path)
    assert "no file has the stem of a slide" in line


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("--tissue", 0), "--tissue 0"),
        (("--tissue", 1.5), "--tissue 1.5"),
        (("--assume-mpp", 0), "--assume-mpp 0"),
        (("--assume-mpp", "nan"), "--assume-mpp nan"),
        (("--classes", "Tumor"), "--classes Tumor"),
        (("--classes", "Stroma=0"), "--classes"),
        (("--stride", 10**11), "--stride 100000000000"),
        (("--size", 10**20), "--size 100000000000000000000"),
    ],
)
def test_options_out_of_range(slide, refused, words, option):
    (line,) = refused(slide, *words)
    assert line.startswith(f"{option}: ")


@pytest.mark.processes
def test_a_disk_that_fills(slide, tmp_path):
    """Finished slides are kept: b, which is larger, does not fit."""
    large = write_slide(tmp_path / "b.tif", [np.tile(PIXELS, (2, 2, 1))])
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))\n"
        "sys.argv = ['pcam-ssl', 'data', 'tile', *sys.argv[1:], '--size', '32', '--mpp', '1']\n"
        "from pcam_ssl.cli import main\n"
        "main()\n"
    )
    assert hasattr(resource, "RLIMIT_FSIZE")
    done = subprocess.run([sys.executable, "-c", code, slide, large, tmp_path / "set"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    kept = "finished slides are kept there: make room, then run the same command"
    assert done.stderr.splitlines()[-1] == f"pcam-ssl: {tmp_path}/set.part: the disk is full (File too large); {kept}"
    assert sorted(path.name for path in (tmp_path / "set.part").glob("*.pixels")) == ["a.pixels"]
    assert not (tmp_path / "set").exists()


def test_too_little_room_is_said_before_the_first_tile(slide, refused, monkeypatch):
    from shutil import _ntuple_diskusage

    monkeypatch.setattr("pcam_ssl.data.writer.shutil.disk_usage", lambda folder: _ntuple_diskusage(10**9, 10**9, 10**6))
    (line,) = refused(slide)
    assert "not enough disk space" in line


@pytest.mark.parametrize("absent", ["openslide", "shapely", "tifffile", "imagecodecs"])
def test_without_the_extra(slide, refused, monkeypatch, absent):
    monkeypatch.setitem(sys.modules, absent, None)
    assert refused(slide) == [f"data tile: {absent} is not installed; pip install 'pcam-ssl[slides]'"]
