import numpy as np
import pandas as pd
import pytest

from pcam_ssl.data.sources.listing import records
from pcam_ssl.demo import sample
from pcam_ssl.demo.sample import choose_sample, even_draw
from pcam_ssl.errors import UserError


@pytest.fixture
def listed():
    """listed(slides=12, patches=20, slide_ids=True, test_label=None): records with as many unlabelled test patches as labelled ones."""

    def listed(slides=12, patches=20, slide_ids=True, test_label=None) -> pd.DataFrame:
        n = slides * patches
        labels = pd.array([*np.arange(n) % 2, *[test_label] * n], dtype="Int8")
        wsi = [f"slide-{row // patches}" for row in range(n)] if slide_ids else [None] * n
        return records([f"p{row}" for row in range(2 * n)], ["train"] * n + ["test"] * n, labels, wsi=[*wsi, *[None] * n])

    return listed


def test_whole_slides_are_held_out_with_their_labels(listed):
    chosen = choose_sample(listed(), "here")
    train, held_out = chosen[chosen.split == "train"], chosen[(chosen.split == "test") & chosen.label.notna()]
    assert not set(train.wsi) & set(held_out.wsi) and held_out.wsi.nunique() == 3
    assert set(held_out.label) == set(train.label) == {0, 1}
    assert chosen.index.is_monotonic_increasing and len(chosen) == 480


def test_without_slides_nothing_is_held_out(listed):
    chosen = choose_sample(listed(slide_ids=False), "here")
    assert chosen.label[chosen.split == "test"].isna().all()


def test_labelled_test_patches_are_the_held_out_part(listed):
    found = listed(test_label=1)
    assert (choose_sample(found, "here").split == found.split).all()


def test_a_large_source_gives_as_many_patches_of_each_slide(listed, monkeypatch):
    monkeypatch.setattr(sample, "LABELLED", 45)
    chosen = choose_sample(listed(), "here")
    counts = chosen[chosen.split == "train"].wsi.value_counts()
    assert counts.sum() == 45 and set(counts) == {5}


def test_the_draw_does_not_look_at_labels(listed):
    found = listed()
    other = found.assign(label=1 - found.label)
    assert np.array_equal(even_draw(found, 30, 0), even_draw(other, 30, 0))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label": pd.NA}, "no labelled training patches"),
        ({"label": 1}, "are tumor"),
        ({"wsi": "one"}, "one slide (one)"),
    ],
)
def test_what_shows_nothing_is_refused_in_one_line(listed, change, words):
    with pytest.raises(UserError, match="here: ") as refused:
        choose_sample(listed().assign(**change).astype({"label": "Int8"}), "here")
    (problem,) = refused.value.problems
    assert words in problem and "without --data" in problem


@pytest.mark.parametrize("slides", [3, 7])
def test_few_slides_are_refused(listed, slides):
    with pytest.raises(UserError, match=f"{slides} slides"):
        choose_sample(listed(slides=slides, patches=60), "here")
