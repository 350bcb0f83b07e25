import io
import json
import zipfile

import numpy as np
import pytest
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


def test_download_knows_pcam_alone(tmp_path):
    with pytest.raises(UserError, match="imagenet: not a dataset that can be fetched; write `pcam-ssl data download pcam`"):
        run("download", "imagenet", tmp_path)
