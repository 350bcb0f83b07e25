"""Galleries of a report: each patch with its label, call, prob, slide, fold, explanation and neighbours."""

import re

import numpy as np
from explained import explained
from pictured import case, pictures

from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.galleries import gallery_cards

HOSTILE = '"><script>alert(1)</script>'


def words(markup: str) -> str:
    return re.sub(r"(<[^>]*>)+", "|", markup)


def test_a_patch_stands_with_what_is_known_of_it():
    wrong, _ = gallery_cards(pictures())
    assert "|tumor, called normal|prob 0.020, fold 1|slide slide-a|40 % in the centre|0a1b|" in words(wrong)


def test_the_two_galleries_are_told_apart():
    wrong, unsure = gallery_cards(pictures())
    assert "Surest wrong" in wrong and "0a1b" in wrong and "2c3d" not in wrong
    assert "Least sure" in unsure and "2c3d" in unsure


def test_every_picture_has_its_words():
    wrong, _ = gallery_cards(pictures())
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', wrong)
    assert alts == [
        "patch 0a1b",
        "what speaks for normal",
        "near: tumor, cosine 0.99, slide slide-a-b",
        "near: normal, cosine 0.98, slide unknown",
    ]


def test_the_centre_is_outlined_on_patch_and_explanation():
    wrong, _ = gallery_cards(pictures())
    assert wrong.count('<i style="--edge: 33.333%">') == 2


def test_says_among_which_patches_neighbours_were_looked_for():
    assert "the nearest labelled patches of other slides, among 5 labelled patches." in gallery_cards(pictures())[0]


def test_without_networks_the_patches_are_there_and_the_reason_is_said():
    bare = case(explained=None, neighbours=[], neighbour_pixels=[])
    wrong, _ = gallery_cards(pictures(wrong=[bare], no_explanations="the networks were deleted", asked=""))
    assert "Explanations are not shown: the networks were deleted.</p>" in wrong
    assert wrong.count("<img") == 1


def test_without_the_dataset_both_say_why():
    assert [words(card) for card in gallery_cards(Pictures(no_cases="its dataset is gone"))] == [
        "|Surest wrong|Not shown: its dataset is gone.|",
        "|Least sure|Not shown: its dataset is gone.|",
    ]


def test_no_wrong_patch_is_said():
    assert "Not shown: no scored patch is on the wrong side of prob 0.5." in gallery_cards(pictures(wrong=[]))[0]


def test_a_flat_map_is_said():
    flat = case(explained=explained(share=None))
    assert "|flat map|" in words(gallery_cards(pictures(wrong=[flat]))[0])


def test_large_patches_are_shown_small():
    wrong, _ = gallery_cards(pictures(wrong=[case(size_px=256)]))
    assert set(re.findall(r'width="(\d+)"', wrong)) == {"96"}


def test_names_from_data_are_escaped():
    wrong, _ = gallery_cards(pictures(wrong=[case(id=HOSTILE, wsi=HOSTILE)]))
    assert "<script" not in wrong


def test_two_full_galleries_stay_under_a_megabyte_and_a_half():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    worst = case(neighbour_pixels=[noise, noise])
    shown = pictures(wrong=[worst] * 12, unsure=[worst] * 12)
    assert sum(map(len, gallery_cards(shown))) < 1_500_000


def test_what_the_pictures_are_is_said_once():
    cards = gallery_cards(pictures())
    assert ["Outlined" in card for card in cards] == [True, False]
    assert "Outlined" in gallery_cards(pictures(wrong=[]))[1]
