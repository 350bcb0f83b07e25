import numpy as np
import pytest
from PIL import Image

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.show import as_text, contact_sheet, summarise
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


@pytest.fixture
def dataset(tmp_path):
    """Red tumor and green normal patches of slide s, red tumor of t, blue unlabelled without slide."""
    colours = np.array([RED, RED, GREEN, RED, BLUE], np.uint8)
    with DatasetWriter(tmp_path / "set", None, source="here", source_format="test") as writer:
        pixels = np.broadcast_to(colours[:, None, None], (5, 16, 16, 3))
        writer.append(
            pixels, list("abcde"), ["train"] * 3 + ["valid", "test"], labels=[1, 1, 0, 1, None], wsi=["s", "s", "s", "t", None]
        )
        writer.notes = {"bad_images": {"count": 4, "first": ["w.tif: not an image", "x", "y", "z"]}}
    return open_dataset(tmp_path / "set")


def test_counts_by_split_label_and_slide(dataset):
    summary = summarise(dataset)
    assert summary["counts"]["train"] == {"tumor": 2, "normal": 1, "unlabelled": 0}
    assert summary["without_slide"] == 1
    slides = [(slide["wsi"], slide["split"], slide["patches"], slide["tumor_share"]) for slide in summary["slides"]]
    assert slides == [("s", "train", 3, 0.6667), ("t", "valid", 1, 1.0)]


def test_text_holds_the_numbers(dataset):
    text = as_text(summarise(dataset))
    assert "5 patches of 16 px, 2 slides" in text.splitlines()[0]
    assert ["train", "2", "1", "0"] in [line.split() for line in text.splitlines()]
    assert ["s", "train", "3", "67%"] in [line.split()[:4] for line in text.splitlines()]
    assert "bad images: 4 (w.tif: not an image, x, y, ...)" in text
    assert "1 patches without slide" in text


def test_without_slides_the_text_names_the_next_step(tmp_path, make_pixels):
    with DatasetWriter(tmp_path / "set", None, source="here", source_format="test") as writer:
        writer.append(make_pixels(1), ["a"], "train")
    assert "no slide ids: folds need proxy groups; give a csv id,wsi at import" in as_text(
        summarise(open_dataset(tmp_path / "set"))
    )


def test_sheet_shows_labels_one_below_the_other(dataset, tmp_path):
    contact_sheet(dataset, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))

    def height(colour):
        return np.flatnonzero((sheet == colour).all(axis=2).any(axis=1)).mean()

    assert height(RED) < height(GREEN) < height(BLUE)
    assert (sheet == RED).all(axis=2).sum() == 3 * 64 * 64  # small patches are drawn at 64 px


def test_sheet_of_another_kind_is_refused(dataset, tmp_path):
    with pytest.raises(UserError, match=r"sheet.pdf: a contact sheet is a PNG; give a name that ends in .png"):
        contact_sheet(dataset, tmp_path / "sheet.pdf")
