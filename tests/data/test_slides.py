import pytest

from pcam_ssl.data.importing import import_source
from pcam_ssl.errors import UserError


@pytest.fixture
def import_with(tmp_path, make_kaggle):
    """import_with(text of the slide csv): the dataset."""

    def run(text):
        (tmp_path / "slides.csv").write_text(text)
        return import_source(make_kaggle(), tmp_path / "set", wsi=tmp_path / "slides.csv")

    return run


def rows(ids, slide="s"):
    return "id,wsi\n" + "".join(f"{i},{slide}\n" for i in ids)


def test_ids_without_patch_are_counted_and_named(import_with):
    notes = import_with(rows("abcdefyz")).manifest["notes"]
    assert notes["slide_ids_without_patch"] == {"count": 2, "first": ["y", "z"]}
    assert notes["patches_without_slide"] == 2  # the two test patches


def test_labelled_training_patches_without_slide_are_refused(import_with):
    message = r"4 of 6 labelled training patches have no slide: c, d, e and 1 more; complete the slide csv, or import without"
    with pytest.raises(UserError, match=message):
        import_with(rows("ab"))


def test_an_empty_slide_counts_as_none(import_with):
    with pytest.raises(UserError, match="1 of 6 labelled training patches have no slide: f"):
        import_with(rows("abcde") + "f,\n")


def test_no_common_id_shows_one_of_each(import_with):
    with pytest.raises(UserError, match=r"none of its 2 ids is in .*kaggle.zip \(it has y and 1 more, the source a and 7 more\)"):
        import_with(rows("yz"))


def test_two_slides_for_one_id_are_refused(import_with):
    with pytest.raises(UserError, match="1 ids have conflicting values of wsi, first a has s and t"):
        import_with(rows("abcdef") + "a,t\n")


def test_absent_column_is_named(import_with):
    with pytest.raises(UserError, match=r"slides.csv: no column wsi \(found id, slide\)"):
        import_with("id,slide\na,s\n")


def test_absent_file_is_named(tmp_path, make_kaggle):
    with pytest.raises(UserError, match=r"no.csv: no such file; give --wsi a csv"):
        import_source(make_kaggle(), tmp_path / "set", wsi=tmp_path / "no.csv")


def test_ids_that_look_like_numbers_stay_text(tmp_path, make_pixels, encode):
    (tmp_path / "images" / "1").mkdir(parents=True)
    for name in ("007", "1e5", "NA"):
        (tmp_path / "images" / "1" / f"{name}.png").write_bytes(encode(make_pixels(1)[0], "PNG"))
    (tmp_path / "slides.csv").write_text(rows(["007", "1e5", "NA"], slide="0042"))
    dataset = import_source(tmp_path / "images", tmp_path / "set", wsi=tmp_path / "slides.csv")
    assert dataset.patches["id"].tolist() == ["007", "1e5", "NA"]
    assert dataset.patches["wsi"].unique().tolist() == ["0042"]
