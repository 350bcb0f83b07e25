import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from page_parts import LONG, patches, search_result
from PIL import Image

from pcam_ssl.render.document import Gallery, Group
from pcam_ssl.search.report import neighbours_document, neighbours_page, write_neighbours_page


def page_of(result, size_px: int = 96) -> str:
    return neighbours_page(result, *patches(result, size_px))


class Elements(HTMLParser):
    """Start tags with their attributes, and all text that is shown."""

    def __init__(self, page: str):
        super().__init__()
        self.found, self.texts, self.hidden = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.hidden = tag in ("style", "title")

    def handle_data(self, data):
        if not self.hidden and data.strip():
            self.texts.append(data.strip())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.found if name == tag]


def test_pictures_are_the_patches_to_the_bit_query_first():
    images = Elements(page_of(search_result())).all("img")
    encoded = [re.fullmatch(r"data:image/png;base64,(.+)", image["src"])[1] for image in images]
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in encoded]
    assert [patch.shape for patch in shown] == [(96, 96, 3)] * 6
    assert [int(patch.mean()) for patch in shown] == [10, 100, 101, 102, 11, 102]


def test_every_picture_says_what_it_shows():
    images = Elements(page_of(search_result())).all("img")
    assert [image["alt"] for image in images] == [
        f"Query {LONG}: normal, slide slide-a",
        "Neighbour 1: tumor, slide slide-b, cosine 0.9900",
        "Neighbour 2: normal, slide slide-c, cosine 0.9800",
        "Neighbour 3: unlabelled, slide unknown, cosine 0.9700",
        "Query patch.png: unlabelled, slide unknown",
        "Neighbour 1: unlabelled, slide unknown, cosine 0.9900",
    ]


def test_a_card_tells_rank_label_cosine_prob_slide_split_and_id():
    result = search_result()
    asked = neighbours_document(result, *patches(result)).body[0]
    found = next(
        block for group in asked.blocks if isinstance(group, Group) for block in group.blocks if isinstance(block, Gallery)
    )
    card = found.cards[0]
    assert [line.text for line in card.lines] == ["1", "tumor"]
    facts = [("cosine", "0.9900"), ("prob", "0.900"), ("slide", "slide-b"), ("split", "train"), ("id", "n0")]
    assert [(name, cell.text) for name, cell in card.facts.pairs] == facts


def test_a_long_id_is_shortened_and_its_title_has_all():
    elements = Elements(page_of(search_result()))
    assert {"02405…9187", "78198…0420"} <= set(elements.texts)
    assert {LONG, LONG[::-1]} <= {fact.get("title") for fact in elements.all("dd")}


def test_a_query_begins_with_the_tally_of_its_neighbours():
    texts = Elements(page_of(search_result())).texts
    assert "1 tumor, 1 normal, 1 unlabelled from 2 slides; cosine 0.990 to 0.970" in texts
    assert "1 unlabelled; cosine 0.990 to 0.990" in texts


def test_what_was_left_out_is_counted():
    texts = Elements(page_of(search_result())).texts
    assert "Left out: the patch itself, 29 others of its slide slide-a." in texts
    assert "Left out: 2 exact or near duplicates." in texts


def test_fewer_than_k_is_said():
    assert "only 1 of 3: all other patches of the gallery are left out" in Elements(page_of(search_result())).texts


def test_the_page_names_index_backend_and_digests():
    texts = Elements(page_of(search_result())).texts
    for text in ("runs/m, 3 patches", f"digest {'e' * 64}", f"data/set, digest {'d' * 64}", "cpu (FAISS sees no GPU)"):
        assert text in texts
    assert "Flat (exact), built 2025-01-02T03:04:05+00:00" in texts


def test_an_approximate_index_is_named_with_its_parameters():
    index = {"factory": "IVF64,Flat", "parameters": {"nprobe": 8}, "exact": False, "created": "now"}
    assert "IVF64,Flat (approximate, nprobe 8), built now" in Elements(page_of(search_result(index=index))).texts


def test_text_from_data_is_no_markup():
    script = "<script>alert(1)</script>"
    page = page_of(search_result(slide=script, image=f'"{script}', run=f"runs/{script}"))
    assert Elements(page).all("script") == [] and script in "".join(Elements(page).texts)


@pytest.mark.parametrize(("size_px", "edge"), [(96, "33.3333%"), (64, "25.0000%")])
def test_the_centre_is_outlined(size_px, edge):
    outlines = Elements(page_of(search_result(), size_px)).all("i")
    assert [outline["style"] for outline in outlines] == [f"--edge: {edge}"] * 6


def test_a_patch_that_is_all_centre_has_no_outline():
    page = page_of(search_result(), 32)
    assert Elements(page).all("i") == [] and "Outlined" not in page


def test_the_page_needs_nothing_else(tmp_path):
    result = search_result()
    write_neighbours_page(tmp_path / "page.html", result, *patches(result))
    page = (tmp_path / "page.html").read_text()
    elements = Elements(page)
    addresses = [value for _, attributes in elements.found for name, value in attributes.items() if name in ("src", "href")]
    assert addresses and all(address.startswith("data:") for address in addresses)
    assert not re.search(r"https?:|url\(|@import", page) and elements.all("script") == []


@pytest.mark.parametrize(("width_px", "dark", "background"), [(400, True, "rgb(18, 21, 26)"), (1600, False, "rgb(244, 245, 247)")])
def test_the_page_fits_its_width_in_its_colours(measured, tmp_path, width_px, dark, background):
    result = search_result(slide="a-very-long-name-of-a-slide-" * 4, image="/a/long/path" * 20 + ".png")
    write_neighbours_page(tmp_path / "page.html", result, *patches(result))
    found = measured(tmp_path / "page.html", width_px, dark)
    assert (found["over_px"], found["background"]) == (0, background)


def test_prob_is_explained_where_there_is_one():
    known = search_result()
    unknown = replace(known, gallery=known.gallery.assign(prob=np.nan))
    assert ["prob: calibrated" in page_of(result) for result in (known, unknown)] == [True, False]
