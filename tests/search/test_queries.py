import hashlib
import time

import pandas as pd
import pytest

from pcam_ssl.data.dataset import nearest_ids, open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.search.queries import at_place, by_id


@pytest.fixture(scope="module")
def known() -> pd.Index:
    return pd.Index([hashlib.sha1(str(number).encode()).hexdigest() for number in range(5000)])


@pytest.mark.parametrize("slip", [lambda word: word[:-1] + "x", lambda word: "x" + word[1:], lambda word: word[:20] + word[21:]])
def test_one_slip_of_the_pen_finds_the_id(known, slip):
    assert nearest_ids(slip(known[1234]), known) == f" Did you mean {known[1234]}?"


def test_a_beginning_finds_the_ids_that_begin_so(known):
    assert nearest_ids(known[7][:8], known) == f" Did you mean {known[7]}?"
    assert nearest_ids("a", known).count(",") == 2


def test_nothing_like_it_is_no_suggestion(known):
    assert nearest_ids("hello", known) == ""


def test_many_ids_take_no_time():
    known = pd.Index([f"{number:040x}" for number in range(250_000)])
    begun = time.perf_counter()
    assert nearest_ids(f"{77_777:040x}"[:-1] + "z", known)
    assert time.perf_counter() - begun < 10  # difflib over all of them takes minutes


def test_every_unknown_id_is_refused_with_the_next_step(slides):
    dataset = open_dataset(slides)
    first = dataset.patches.id[0]
    with pytest.raises(UserError) as caught:
        by_id([first, first[:-1], "hello"], dataset, dataset.patches.assign(prob=0.5))
    assert caught.value.problems == (
        f"--id {first[:-1]}: {slides} has no such patch. Did you mean {first}?",
        f"--id hello: {slides} has no such patch. Its ids are in {slides}/patches.parquet",
    )


class TestPlaces:
    def test_the_nearest_patch_of_the_slide_is_asked_for(self, slides, capsys):
        dataset = open_dataset(slides)
        row = dataset.patches[dataset.patches.x.notna()].iloc[3]
        assert at_place(row.wsi, row.x + 1, row.y - 1, dataset) == row.id
        assert f"is {row.id} at {row.x}, {row.y}, 1 px away" in capsys.readouterr().err

    def test_a_slide_that_is_not_there(self, slides):
        dataset = open_dataset(slides)
        name = dataset.patches.wsi.dropna().iloc[0]
        with pytest.raises(UserError, match=rf"--slide {name}x: .* has no such slide\. Did you mean "):
            at_place(f"{name}x", 0, 0, dataset)

    def test_a_slide_without_places(self, slides, rewrite, tmp_path):
        dataset = open_dataset(rewrite(slides, tmp_path / "unplaced", lambda patches: patches.assign(x=pd.NA, y=pd.NA)))
        name = dataset.patches.wsi.dropna().iloc[0]
        with pytest.raises(UserError, match=rf"--slide {name}: its patches have no coordinates in"):
            at_place(name, 0, 0, dataset)
