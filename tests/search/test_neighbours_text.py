from page_parts import LONG, search_result

from pcam_ssl.search.report import neighbours_text


def test_columns_are_aligned_and_everything_is_told():
    assert neighbours_text(search_result()).splitlines() == [
        f"query {LONG}: normal, slide slide-a, train, prob 0.250",
        "left out: the patch itself, 29 others of its slide slide-a",
        "rank  cosine  label        prob  split  slide    id",
        "   1  0.9900  tumor       0.900  train  slide-b  n0",
        f"   2  0.9800  normal      0.125  train  slide-c  {LONG[::-1]}",
        "   3  0.9700  unlabelled      -  test   -        n2",
        "",
        "query patch.png: unlabelled, slide unknown",
        "left out: 2 exact or near duplicates",
        "rank  cosine  label       prob  split  slide  id",
        "   1  0.9900  unlabelled     -  test   -      n2",
        "only 1 of 3: all other patches of the gallery are left out",
    ]
