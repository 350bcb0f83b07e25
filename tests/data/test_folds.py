import pandas as pd
import pytest
from patches_of_slides import SIZES, make_patches

from pcam_ssl.data.folds import read_folds, write_folds
from pcam_ssl.data.splits import make_folds, with_budget
from pcam_ssl.errors import LeakError, UserError
from pcam_ssl.tables import write_table


@pytest.fixture
def patches():
    return make_patches(SIZES)


def test_folds_are_read_back_as_written(patches, tmp_path):
    folds = make_folds(patches, scheme="random", label_budget=200)
    write_folds(folds, tmp_path / "folds.parquet", {"dataset_digest": "d"})
    again = read_folds(tmp_path / "folds.parquet", patches)
    pd.testing.assert_frame_equal(again.frame, folds.frame)
    assert (again.grouping, again.notes, again.inner_share) == (folds.grouping, folds.notes, 0.15)
    assert (again.scheme, again.label_budget) == ("random", 200)


@pytest.mark.parametrize("scheme", ["grouped", "official", "random"])
def test_folds_know_their_scheme_and_label_budget(patches, scheme):
    patches = patches.assign(split=patches.split.mask(patches.wsi == patches.wsi.iloc[0], "valid"))
    folds = make_folds(patches, scheme=scheme, label_budget=100)
    assert (folds.scheme, folds.label_budget) == (scheme, 100)
    assert make_folds(patches, scheme=scheme).label_budget is None


def test_a_budget_hides_the_same_labels_in_given_folds_as_in_new_ones(patches):
    folds = make_folds(patches)
    drawn = with_budget(folds, patches, 100, seed=3)
    assert drawn.frame.visible.tolist() == make_folds(patches, label_budget=100, seed=3).frame.visible.tolist()
    columns = [name for name in folds.frame if name != "visible"]
    assert drawn.frame[columns].equals(folds.frame[columns])


def spoilt_file(patches, path, change):
    folds = make_folds(patches)
    frame = folds.frame.copy()
    change(frame, folds)
    write_table(path, frame, {"grouping": folds.grouping, "notes": "[]"})


def move_one_row(frame, folds):
    frame.loc[folds.score_mask(0).argmax(), "fold"] = 1


def keep_one_row_inside(frame, folds):
    frame.loc[folds.train_mask(2).argmax(), "inner_2"] = True


def keep_a_scored_row_inside(frame, folds):
    frame.loc[folds.score_mask(2).argmax(), "inner_2"] = True


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (move_one_row, "is in 2 folds; make the folds again"),
        (keep_one_row_inside, "is in the training part and in inner_2; make the folds again"),
        (keep_a_scored_row_inside, "inner_2 holds patches that its own fold scores; make the folds again"),
    ],
)
def test_a_group_split_across_parts_is_refused(patches, tmp_path, change, text):
    spoilt_file(patches, tmp_path / "folds.parquet", change)
    with pytest.raises(LeakError, match=text):
        read_folds(tmp_path / "folds.parquet", patches)


def test_folds_of_other_patches_are_refused(patches, tmp_path):
    write_folds(make_folds(patches), tmp_path / "folds.parquet")
    with pytest.raises(UserError, match=r"made for other patches \(316 there, 315 labelled in the dataset, 315 in both\)"):
        read_folds(tmp_path / "folds.parquet", patches.drop(index=5))


def test_folds_of_other_slides_are_refused(patches, tmp_path):
    write_folds(make_folds(patches), tmp_path / "folds.parquet")
    patches.loc[7, "wsi"] = "elsewhere"
    with pytest.raises(UserError, match=f"1 patches have another slide now, first {patches['id'][7]}"):
        read_folds(tmp_path / "folds.parquet", patches)


def test_another_table_is_refused(patches, tmp_path):
    write_table(tmp_path / "patches.parquet", patches)
    with pytest.raises(UserError, match=r"not a folds table; name the folds.parquet of a run"):
        read_folds(tmp_path / "patches.parquet", patches)
