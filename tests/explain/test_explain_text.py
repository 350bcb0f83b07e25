from explanations import explained

from pcam_ssl.explain.report import blur_text, call_text, centre_text, explained_text, fold_text, neighbours_heading, views_text


def test_a_call_is_compared_with_the_label():
    assert call_text(explained(prob=0.9)) == "tumor (prob 0.900): right"
    assert call_text(explained(prob=0.9, label=0)) == "tumor (prob 0.900): wrong, the label is normal"
    assert call_text(explained(prob=0.2, label=None)) == "normal (prob 0.200): no label to compare with"


def test_the_centre_share_stands_beside_an_even_spread():
    assert centre_text(explained()) == "40 % of the attribution lies in the centre (11 % if spread evenly)"


def test_a_flat_map_is_said():
    flat = explained(share=None)
    assert centre_text(flat) == "the map is flat: no part of the patch is evidence for the call"
    assert views_text(flat) == "7 of 8 D4 views give this call"


def test_a_call_that_blurring_changes_is_named():
    changed = "prob 0.100 with the centre blurred, which changes the call to normal"
    assert blur_text(explained(prob=0.9)) == f"{changed}; prob 0.900 with the surround blurred"


def test_a_patch_is_a_block_of_lines():
    lines = explained_text(explained()).splitlines()
    assert lines[0] == "patch 0a1b: tumor, slide slide-a, train"
    assert lines[1].split(maxsplit=1) == ["network", "fold 2, which never saw its label"]
    assert lines[-3:] == [
        "  Nearest labelled patches of other slides in the embedding of fold 2:",
        "    0.9900  tumor   slide slide-a-b  n0",
        "    0.9800  normal  slide unknown    n1",
    ]


def test_what_a_network_had_of_the_label_is_said():
    assert "fold 2, which learned from its label" in explained_text(explained(learned="label"))
    assert "the mean of folds 0, 1, which learned from a pseudo-label of it" in explained_text(
        explained(folds=(0, 1), learned="pseudo-label")
    )


def test_neighbours_of_an_unknown_slide_are_not_called_those_of_other_slides():
    heading = "Nearest labelled patches (its slide is unknown: near duplicates left out) in the embedding of fold 2"
    assert neighbours_heading(explained(wsi=None)) == heading


def test_views_agree_on_the_call_and_on_the_map():
    assert views_text(explained()) == "7 of 8 D4 views give this call; their maps correlate 0.75 (1 is the same)"


def test_a_patch_without_neighbours_has_no_heading_for_them():
    assert "Nearest" not in explained_text(explained(neighbours=[], neighbour_pixels=[]))


def fold_facts(**more) -> dict:
    score = {"n": 10, "value": 0.25, "low": 0.2, "high": 0.3}
    none = {"value": None, "low": None, "high": None, "reason": "all calls are right"}
    means = {"all": score, "right": score, "wrong": {"n": 0, **none}, "difference": none}
    return {"fold": 1, "n": 12, "even_share": 1 / 9, "flat": 2, "interval": "95 % slide-clustered bootstrap", **means, **more}


def test_a_fold_is_a_table():
    lines = fold_text(fold_facts()).splitlines()
    assert lines[0] == "fold 1: 12 patches, explained by the network that was not trained on them, one unaugmented view each"
    assert lines[3].split() == ["all", "10", "0.250", "0.200", "to", "0.300"]
    assert lines[5].split(maxsplit=4) == ["called", "wrong", "0", "-", "(all calls are right)"]
    assert lines[-2:] == ["interval: 95 % slide-clustered bootstrap", "2 patches whose map is flat are left out"]


def test_a_difference_carries_its_sign():
    difference = {"value": 0.01, "low": -0.02, "high": 0.04}
    lines = [" ".join(line.split()) for line in fold_text(fold_facts(difference=difference)).splitlines()]
    assert "right - wrong +0.010 -0.020 to +0.040" in lines
