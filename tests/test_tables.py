import numpy as np
import pandas as pd
import pytest

from pcam_ssl import __version__
from pcam_ssl.errors import UserError
from pcam_ssl.tables import PREDICTION_COLUMNS, check_predictions, conform, predictions, read_table, write_table


@pytest.fixture
def table():
    return predictions(["a", "b"], [1, None], ["s", None], 3, [0.0, 2.0], [0.1, 0.2])


def test_predictions_have_the_agreed_columns_and_dtypes(table):
    assert {name: str(kind) for name, kind in table.dtypes.items()} == PREDICTION_COLUMNS


def test_probs_are_the_sigmoid_of_the_logits_unless_given(table):
    assert table.prob.tolist() == [0.5, pytest.approx(1 / (1 + np.exp(-2)))]
    assert predictions(["a"], [None], [None], 0, [3.0], probs=[0.6]).prob.tolist() == [0.6]


def test_unknown_labels_and_slides_stay_unknown(table):
    assert table.label.isna().tolist() == table.wsi.isna().tolist() == [False, True]


def test_a_table_is_read_back_with_its_metadata(table, tmp_path):
    write_table(tmp_path / "t.parquet", table, {"round": 0})
    back, notes = read_table(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(conform(back, PREDICTION_COLUMNS), table)
    assert notes == {"schema_version": "1", "package_version": __version__, "round": "0"}


def test_conform_names_absent_columns(table):
    with pytest.raises(ValueError, match=r"columns \['prob'\] are absent"):
        conform(table.drop(columns="prob"), PREDICTION_COLUMNS)


def test_conform_orders_columns_and_drops_others(table):
    assert list(conform(table[table.columns[::-1]].assign(more=1), PREDICTION_COLUMNS)) == list(PREDICTION_COLUMNS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="fold"), r"x.parquet: not a Predictions table \(columns \['fold'\] are absent"),
        (lambda t: pd.concat([t, t]), "x.parquet: 2 ids .* in one fold, first a; write each id once"),
        (lambda t: t.assign(logit=[1.0, np.nan]), "x.parquet: 1 scores are not finite, first at id b; retrain or drop them"),
        (lambda t: t.assign(prob=[np.inf, 1]), "x.parquet: 1 scores are not finite, first at id a"),
    ],
)
def test_invalid_predictions_are_refused(table, change, message):
    with pytest.raises(UserError, match=message):
        check_predictions(change(table), "x.parquet")


def test_one_id_may_occur_in_several_folds(table):
    both = pd.concat([table, table.assign(fold=-1)])
    assert len(check_predictions(both, "x.parquet")) == 4


def test_an_absent_table_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no.parquet: no such file"):
        read_table(tmp_path / "no.parquet")


def test_a_damaged_table_is_refused(tmp_path, table):
    path = tmp_path / "t.parquet"
    write_table(path, table)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"t.parquet: cannot be read as parquet \(.*\); make it again"):
        read_table(path)
