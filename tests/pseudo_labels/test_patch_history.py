"""The history of one patch: its decisions by round and fold, and a sentence on the latest round."""

import json

import numpy as np
import pandas as pd
import pytest

from pcam_ssl.data.dataset import nearest_ids
from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.patch_history import COLUMNS, PatchHistory, patch_rows
from pcam_ssl.tables import DECISION_COLUMNS, conform

ADDED = "called tumor: beyond prob 0.962, from where a precision of 0.98 is proven"
LEFT_OUT = "prob 0.931 is below 0.962, from where a precision of 0.98 is proven for tumor"


def entry(id, fold, prob, label=np.nan, change="", reason=ADDED, knn=np.nan) -> dict:
    added = not np.isnan(label)
    return {
        "id": id,
        "fold": fold,
        "logit": 0.0,
        "prob": prob,
        "view_std": 0.25,
        "knn_prob": knn,
        "decision": "added" if added else "left out",
        "reason": reason,
        "label": label,
        "weight": float(added),
        "change": change,
        "network_digest": "d" * 64,
    }


def story(decisions_of, id, nearest_ids, truth=None) -> str:
    return str(PatchHistory(id, patch_rows(decisions_of, id, nearest_ids), truth))


def decisions(*entries) -> pd.DataFrame:
    return conform(pd.DataFrame(entries), DECISION_COLUMNS)


@pytest.fixture
def decisions_of() -> dict[int, pd.DataFrame]:
    """Patch p1: tumor in both folds, then taken back by fold 0 and flipped by fold 1."""
    other = entry("p2", 0, 0.5, reason="nothing")
    return {
        2: decisions(
            entry("p1", 1, 0.02, 0.0, "flipped", "called normal", knn=0.1),
            entry("p1", 0, 0.931, change="taken back", reason=LEFT_OUT),
        ),
        1: decisions(other, entry("p1", 0, 0.97, 1.0, "new"), entry("p1", 1, 0.98, 1.0, "new")),
    }


def test_rows_are_in_order_of_round_and_fold(decisions_of):
    rows = patch_rows(decisions_of, "p1", nearest_ids)
    assert tuple(rows.columns) == COLUMNS
    assert rows[["round", "fold"]].to_numpy().tolist() == [[1, 0], [1, 1], [2, 0], [2, 1]]
    assert rows.change.tolist() == ["new", "new", "taken back", "flipped"]


def test_the_table_shows_every_decision_with_its_reason(decisions_of):
    assert story(decisions_of, "p1", nearest_ids).splitlines()[:4] == [
        "patch p1",
        "round  fold   prob  views    kNN  decision  label   weight  change      reason",
        "    1     0  0.970  0.250      -  added     tumor     1.00  new         called tumor: beyond prob",
        "                                                                        0.962, from where a",
    ]
    assert "    2     1  0.020  0.250  0.100  added     normal    1.00  flipped     called normal" in story(
        decisions_of, "p1", nearest_ids
    )


def test_fits_a_hundred_columns_and_loses_no_word_of_a_reason(decisions_of):
    lines = story(decisions_of, "p1", nearest_ids)
    assert max(map(len, lines.splitlines())) <= 100
    assert LEFT_OUT in " ".join(lines.split())


def test_the_sentence_names_the_latest_round_and_the_changes(decisions_of):
    assert " ".join(story(decisions_of, "p1", nearest_ids).split("\n\n")[1].split()) == (
        "In round 2, the latest, 1 of 2 folds learn from it: 1 as normal. "
        "Over all rounds and folds it was taken back once and flipped once. Its true label is not known."
    )


def test_folds_that_disagree_are_both_counted(decisions_of):
    decisions_of[3] = decisions(
        entry("p1", 0, 0.99, 1.0, "new"), entry("p1", 1, 0.02, 0.0, "kept"), entry("p1", 2, 0.03, 0.0, "new")
    )
    assert "3 of 3 folds learn from it: 1 as tumor, 2 as normal." in story(decisions_of, "p1", nearest_ids)


def test_the_hidden_label_is_compared_with_the_latest_pseudo_labels(decisions_of):
    assert "Its hidden label is tumor, so 0 of these 1 are right." in " ".join(
        story(decisions_of, "p1", nearest_ids, truth=1).split()
    )


def test_a_patch_that_was_never_added_has_no_label_to_judge(decisions_of):
    del decisions_of[2]
    text = " ".join(story(decisions_of, "p2", nearest_ids, truth=0).split())
    assert text.endswith(
        "0 of 1 folds learn from it. Over all rounds and folds it was never taken back nor flipped. Its hidden label is normal."
    )


def test_a_soft_label_is_shown_as_its_number():
    assert "  0.913  " in story({1: decisions(entry("p1", 0, 0.97, 0.913, "new"))}, "p1", nearest_ids)


def test_pooled_rows_belong_to_all_folds():
    assert "    1   all  0.970" in story({1: decisions(entry("p1", -1, 0.97, 1.0, "new"))}, "p1", nearest_ids)


def test_an_unknown_id_is_refused_with_the_nearest():
    long_ids = {1: decisions(entry("patch-001", 0, 0.9), entry("other-999", 0, 0.9))}
    with pytest.raises(UserError) as refused:
        story(long_ids, "patch-003", nearest_ids)
    text = str(refused.value)
    assert text.startswith("--explain patch-003: ") and text.endswith("Did you mean patch-001?")


def test_an_id_like_no_other_is_refused_with_the_place_of_all(decisions_of):
    with pytest.raises(UserError, match=r"The pool's ids are in round-1/pseudo\.parquet$"):
        story(decisions_of, "zzzzzz", nearest_ids)


def test_without_rounds_there_is_no_history():
    with pytest.raises(UserError, match="no round has been made yet"):
        story({}, "p1", nearest_ids)


def test_json_has_a_dict_for_each_round_and_fold(decisions_of):
    found = PatchHistory("p1", patch_rows(decisions_of, "p1", nearest_ids), truth=1).to_dict()
    assert (found["id"], found["truth"]) == ("p1", 1)
    assert [tuple(each) for each in found["decisions"]] == [COLUMNS] * len(patch_rows(decisions_of, "p1", nearest_ids))
    json.dumps(found, allow_nan=False)
