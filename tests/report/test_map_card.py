"""Embedding maps of a report: dots by label and by slide, and the numbers as text."""

import re
from dataclasses import replace

import numpy as np
from laid_out import markup, words
from report_pictures import fold_map, pictures

from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.galleries import SLIDES, map_section


def maps(section) -> list[str]:
    """The drawn maps, without the keys of the legend."""
    return re.findall(r'<svg [^>]*role="img".*?</svg>', markup(section))


def test_a_fold_has_a_map_by_label_and_one_by_slide():
    labels, slides = re.findall(r'<svg [^>]*aria-label="([^"]*)"', markup(map_section(pictures())))
    assert labels == "Fold 1, AUROC 0.900: 4 patches coloured by label; numbers below"
    assert slides == "Fold 1, AUROC 0.900: the same patches coloured by slide; numbers below"


def test_every_patch_is_a_dot_of_its_class():
    by_label, _ = maps(map_section(pictures()))
    dots = {colour: path.count("h0") for path, colour in re.findall(r'<path d="([^"]*)" class="points c(\d)">', by_label)}
    assert dots == {"1": 2, "2": 2}


def test_axes_share_one_scale():
    by_label, _ = maps(map_section(pictures()))
    (first, second, *_) = [int(x) for x in re.findall(r"M(\d+) ", by_label)]
    left, right = (int(x) for x in re.findall(r"M(\d+) ", by_label)[1::2])
    assert abs((right - left) - 3 * (second - first)) <= 2


def test_the_largest_slides_have_colours_and_the_others_grey():
    slides = [*"abcdefghi", "i"]
    many = replace(fold_map(), places=np.array([[i, i % 2] for i in range(10)], float), labels=np.zeros(10, int), slides=slides)
    _, by_slide = maps(map_section(pictures(maps=[many])))
    assert len(re.findall(r'class="points c[1-9]"', by_slide)) == SLIDES
    assert len(re.findall(r'class="points c0"', by_slide)) == 1


def test_numbers_stand_in_a_table_with_what_chance_gives():
    assert "|1|0.900|4 of 9|3|0.800|0.500|0.400|0.100|0.250|-|" in words(map_section(pictures()))


def test_unknown_slides_have_no_map_by_slide():
    shown = map_section(pictures(maps=[fold_map(slides=(None,) * 4)]))
    assert len(maps(shown)) == 1
    assert "|unknown|" in words(shown)


def test_says_what_the_method_keeps():
    assert "PCA shows the two directions of greatest variance" in words(map_section(pictures()))
    assert "UMAP shows which patches are neighbours" in words(map_section(pictures(maps=[fold_map(method="umap")])))


def test_without_networks_it_says_why():
    assert map_section(Pictures(no_maps="gone")).absent == "gone"


def test_one_point_is_a_map_too():
    lonely = fold_map()
    lonely.places[:] = 3.0
    assert "nan" not in markup(map_section(pictures(maps=[lonely]))).lower()
