"""Galleries of a report: each patch with its label, call, prob, slide, fold, explanation and neighbours."""

import re

import numpy as np
from explanations import explained
from laid_out import markup, words
from report_pictures import case, pictures

from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.galleries import unsure_section, wrong_section

HOSTILE = '"><script>alert(1)</script>'


def test_a_patch_stands_with_what_is_known_of_it():
    assert "|tumor, called normal|prob 0.020, fold 1|slide slide-a|40 % in the centre|0a1b|" in words(wrong_section(pictures()))


def test_the_two_galleries_are_told_apart():
    wrong, unsure = words(wrong_section(pictures())), words(unsure_section(pictures()))
    assert "0a1b" in wrong and "2c3d" not in wrong
    assert "2c3d" in unsure and "0a1b" not in unsure


def test_every_picture_has_its_words():
    alts = re.findall(r'<img [^>]*alt="([^"]*)"', markup(wrong_section(pictures())))
    assert alts == [
        "patch 0a1b",
        "evidence for normal",
        "neighbour: tumor, cosine 0.99, slide slide-a-b",
        "neighbour: normal, cosine 0.98, slide unknown",
    ]


def test_the_centre_is_outlined_on_patch_and_explanation():
    assert markup(wrong_section(pictures())).count('<i style="--edge: 33.3333%">') == 2


def test_says_among_which_patches_neighbours_were_looked_for():
    assert "the nearest labelled patches of other slides, among 5 labelled patches." in words(wrong_section(pictures()))


def test_without_networks_the_patches_are_there_and_the_reason_is_said():
    bare = case(explained=None, neighbours=[], neighbour_pixels=[])
    wrong = markup(wrong_section(pictures(wrong=[bare], no_explanations="the networks were deleted", asked="")))
    assert "Explanations are not shown: the networks were deleted.</p>" in wrong
    assert wrong.count("<img") == 1


def test_without_the_dataset_both_say_why():
    gone = Pictures(no_cases="its dataset is gone")
    assert [section.absent for section in (wrong_section(gone), unsure_section(gone))] == ["its dataset is gone"] * 2


def test_no_wrong_patch_is_said():
    assert wrong_section(pictures(wrong=[])).absent == "no scored patch is on the wrong side of prob 0.5"


def test_a_flat_map_is_said():
    flat = case(explained=explained(share=None))
    assert "|flat map|" in words(wrong_section(pictures(wrong=[flat])))


def test_large_patches_are_shown_small():
    assert set(re.findall(r'width="(\d+)"', markup(wrong_section(pictures(wrong=[case(size_px=256)]))))) == {"96"}


def test_names_from_data_are_escaped():
    assert "<script" not in markup(wrong_section(pictures(wrong=[case(id=HOSTILE, wsi=HOSTILE)])))


def test_two_full_galleries_stay_under_a_megabyte_and_a_half():
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    worst = case(neighbour_pixels=[noise, noise])
    shown = pictures(wrong=[worst] * 12, unsure=[worst] * 12)
    assert len(markup(wrong_section(shown), unsure_section(shown))) < 1_500_000


def test_what_the_pictures_are_is_said_once():
    assert ["Outlined" in words(section) for section in (wrong_section(pictures()), unsure_section(pictures()))] == [True, False]
    assert "Outlined" in words(unsure_section(pictures(wrong=[])))
