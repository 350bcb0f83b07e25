"""The command on tiny slides, and what it refuses."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.synthetic import draw_slides
from pcam_ssl.demo import tour

ROUND = (
    "pseudo.precision=null",
    "pseudo.confidence=0.51",
    "pseudo.planted_share=0",
    "pseudo.stop_share=null",
    "pseudo.stop_ratio=null",
    "pseudo.balance=none",
)
DRAWN = {"slides": 10, "patches": 16, "test_slides": 4, "size": 32}


@pytest.fixture
def small(tmp_path, monkeypatch, tiny_recipe):
    """The demo with tiny slides and tiny runs in place of its own."""
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_recipe(*ROUND).dump()))
    monkeypatch.setattr(tour, "SLIDES", DRAWN)
    metric = {"method.name": "metric", "method.projection": 8, "neighbours.k": 5}
    monkeypatch.setattr(tour, "SMALL", tour.Recipes(str(recipe), metric))
    monkeypatch.setattr(tour, "recipes_for_patches", lambda: tour.SMALL)


@pytest.fixture
def kaggle(tmp_path, encode):
    """kaggle(slides=14, labels=None): Kaggle's zip of drawn patches, and its slide csv."""

    def kaggle(slides=14, labels=None) -> tuple[Path, Path]:
        pixels, drawn, numbers = draw_slides(slides, n_patches=16, size_px=32)
        labels = drawn if labels is None else np.full(len(drawn), labels)
        source, csv = tmp_path / "patches.zip", tmp_path / "slides.csv"
        with zipfile.ZipFile(source, "w") as archive:
            for row, patch in enumerate(pixels):
                archive.writestr(f"{'train' if row % 4 else 'test'}/p{row}.tif", encode(patch))
            train = [row for row in range(len(pixels)) if row % 4]
            archive.writestr("train_labels.csv", "id,label\n" + "".join(f"p{row},{labels[row]}\n" for row in train))
        csv.write_text("id,wsi\n" + "".join(f"p{row},slide-{numbers[row]}\n" for row in train))
        return source, csv

    return kaggle


def check_screen(text: str, lines: int) -> None:
    """One screen of 80 columns: the table, three sentences, and pages that are there."""
    blocks = text.strip().split("\n\n")
    assert len(blocks) == 5 and len(blocks[0].splitlines()) == lines <= 12
    assert [block.partition(":")[0] for block in blocks[1:4]] == ["Leak", "Search", "Round"]
    pages = re.findall(r"^open (\S+)", text, re.M)
    assert len(pages) >= 2 and all(Path(page).is_file() for page in pages)
    assert max(map(len, text.split("open ")[0].splitlines())) <= 80


@pytest.mark.trains
def test_the_demo_fits_a_screen_and_goes_on_where_it_is_finished(command, small, tmp_path):
    first = command("demo", "--folder", tmp_path / "demo")
    assert first.code == 0, first.err
    check_screen(first.out, 6)
    again = command("demo", "--folder", tmp_path / "demo")
    assert again.out == first.out
    (problem,) = command("demo", "--folder", tmp_path / "demo", "--seed", 1).problems
    assert "seed 0" in problem and "--folder" in problem


@pytest.mark.trains
def test_own_patches_are_sampled_and_slides_held_out(command, small, kaggle, tmp_path):
    source, csv = kaggle()
    ended = command("demo", "--folder", tmp_path / "demo", "--data", source, "--wsi", csv)
    assert ended.code == 0, ended.err
    check_screen(ended.out, 6)
    assert "patches.zip" in ended.out and "on new slides" in ended.out
    patches = open_dataset(tmp_path / "demo" / "patches").patches
    held_out = patches[(patches.split == "test") & patches.label.notna()]
    assert len(held_out) and not set(held_out.wsi) & set(patches.wsi[patches.split == "train"])


@pytest.mark.trains
def test_without_slides_it_says_so_and_shows_no_held_out_column(command, small, kaggle, tmp_path):
    source, _ = kaggle()
    ended = command("demo", "--folder", tmp_path / "demo", "--data", source)
    assert ended.code == 0, ended.err
    assert "no slide ids" in ended.err and "kept on new slides" not in ended.out
    assert "No slides are held out" in " ".join(ended.out.split())


BAD = {
    "absent": (lambda source, csv: ["--data", source.with_name("gone.zip")], "gone.zip"),
    "no images": (lambda source, csv: ["--data", csv], "format not recognised"),
    "csv without a match": (lambda source, csv: ["--data", source, "--wsi", _other(csv)], "none of its"),
    "csv without data": (lambda source, csv: ["--wsi", csv], "only with --data"),
    "one slide": (lambda source, csv: ["--data", source, "--wsi", _one(csv)], "one slide"),
}


def _other(csv: Path) -> Path:
    csv.write_text("id,wsi\nnobody,slide\n")
    return csv


def _one(csv: Path) -> Path:
    csv.write_text(re.sub(r"slide-\d+", "slide", csv.read_text()))
    return csv


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_writes_nothing(command, kaggle, tmp_path, words, told):
    ended = command("demo", "--folder", tmp_path / "demo", *words(*kaggle()))
    (problem,) = ended.problems
    assert (ended.code, ended.out) == (2, "") and told in problem
    assert not (tmp_path / "demo").exists()


def test_one_class_is_refused(command, kaggle, tmp_path):
    source, csv = kaggle(labels=1)
    ended = command("demo", "--folder", tmp_path / "demo", "--data", source, "--wsi", csv)
    (problem,) = ended.problems
    assert ended.code == 2 and "are tumor" in problem and not (tmp_path / "demo").exists()
