import io
import json
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from file_server import FileServer
from PIL import Image
from typer.testing import CliRunner

from pcam_ssl.cli.data import app
from pcam_ssl.errors import UserError


@pytest.fixture
def source(tmp_path):
    """A Kaggle zip with two train patches and one test patch."""
    with zipfile.ZipFile(tmp_path / "kaggle.zip", "w") as archive:
        for value, name in enumerate(("train/a", "train/b", "test/c")):
            buffer = io.BytesIO()
            Image.fromarray(np.full((16, 16, 3), 40 * value, np.uint8)).save(buffer, "TIFF")
            archive.writestr(f"{name}.tif", buffer.getvalue())
        archive.writestr("train_labels.csv", "id,label\na,0\nb,1\n")
    (tmp_path / "slides.csv").write_text("id,wsi\na,s\nb,t\n")
    return tmp_path / "kaggle.zip"


def run(*arguments):
    """The outcome of a command; an error that the user can mend is raised, as the whole program's main() expects it."""
    outcome = CliRunner().invoke(app, list(map(str, arguments)))
    if isinstance(outcome.exception, UserError):
        raise outcome.exception
    return outcome


def test_import_prints_what_came_in_and_the_next_move(source, tmp_path):
    outcome = run("import", source, tmp_path / "set", "--wsi", tmp_path / "slides.csv")
    assert outcome.exit_code == 0
    assert outcome.stdout.splitlines() == [
        f"{tmp_path / 'set'}: 3 patches of 16 px, 2 slides",
        "train 2 (1 tumor, 1 normal); test 1 (1 unlabelled)",
        f"next: pcam-ssl data show {tmp_path / 'set'}, then pcam-ssl baseline --data {tmp_path / 'set'}",
    ]


def test_import_passes_skip_bad(source, tmp_path):
    with zipfile.ZipFile(source, "a") as archive:
        archive.writestr("test/d.tif", b"hello")
    with pytest.raises(UserError, match=r"test/d.tif: not an image"):
        run("import", source, tmp_path / "set")
    assert "3 patches" in run("import", source, tmp_path / "set", "--skip-bad", "--workers", 1).stdout


def test_show_prints_text_or_json_and_writes_the_sheet(source, tmp_path):
    run("import", source, tmp_path / "set", "--wsi", tmp_path / "slides.csv")
    text = run("show", tmp_path / "set", "--sheet", tmp_path / "sheet.png").stdout
    assert text.splitlines()[-1] == f"contact sheet: {tmp_path / 'sheet.png'}"
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
    shown = json.loads(run("show", tmp_path / "set", "--json").stdout)
    assert shown["counts"] == {
        "train": {"tumor": 1, "normal": 1, "unlabelled": 0},
        "test": {"tumor": 0, "normal": 0, "unlabelled": 1},
    }
    assert [slide["wsi"] for slide in shown["slides"]] == ["s", "t"]


def test_download_refuses_other_names_and_options_that_do_not_apply(tmp_path):
    with pytest.raises(UserError, match="imagenet: not a dataset that can be fetched; write `pcam-ssl data download pcam`"):
        run("download", "imagenet", tmp_path)
    for option in ("--sample", "5"), ("--url", "https://x"):
        with pytest.raises(UserError, match=f"{option[0]}: is for `pcam-ssl data download pcam`; leave it out"):
            run("download", "kaggle", tmp_path, *option)


@pytest.fixture
def sample_server(make_pixels, encode):
    """A server of the first parquet file of each split, with 30 patches."""
    image = pa.array([{"bytes": encode(pixels), "path": None} for pixels in make_pixels(30)])
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": image, "label": [True, False] * 15}), sink)
    server = FileServer({f"/{split}/0000.parquet": sink.getvalue().to_pybytes() for split in ("train", "valid", "test")})
    yield server
    server.close()


def test_download_of_a_sample_prints_the_next_command_which_works(tmp_path, sample_server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = run("download", "pcam", "--sample", 20, "--url", sample_server.url)
    assert outcome.stdout.splitlines() == [
        "data/pcam-sample: 3 files, the first 20 patches of each split",
        "next: pcam-ssl data import data/pcam-sample data/pcam",
    ]
    assert "60 patches of 16 px" in run("import", "data/pcam-sample", "data/pcam").stdout


def test_download_of_a_sample_of_nothing_is_one_line(tmp_path):
    with pytest.raises(UserError, match="--sample 0: not a number of patches; give 1 or more"):
        run("download", "pcam", tmp_path, "--sample", 0)


def test_download_by_kaggle_prints_the_next_command(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zipped = tmp_path / "data" / "kaggle-download" / "histopathologic-cancer-detection.zip"
    zipped.parent.mkdir(parents=True)
    source.rename(zipped)
    outcome = run("download", "kaggle")
    shown = zipped.relative_to(tmp_path)
    assert outcome.stdout.splitlines() == [str(shown), f"next: pcam-ssl data import {shown} data/kaggle"]
    assert "3 patches of 16 px" in run("import", shown, "data/kaggle").stdout
