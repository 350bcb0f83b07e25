"""Where a round's thresholds come from: the inner slides of the round before, as its own networks see them."""

import pandas as pd
import pytest
from round_outputs import table

from pcam_ssl.pseudo_labels import labeling as selecting
from pcam_ssl.pseudo_labels.setup import open_rounds
from pcam_ssl.runs.run import Run


@pytest.fixture
def inner_of(two_rounds_copy, monkeypatch):
    """inner_of(number, "a.b=c", ...): the tables of inner slides by which round `number` decides when it selects again."""

    def inner_of(number, *settings):
        for path in two_rounds_copy.glob(f"round-{number}/*/selection.json"):
            path.unlink()
        seen = []
        decide = selecting.decide
        monkeypatch.setattr(selecting, "decide", lambda pool, inner, *rest: seen.append(inner) or decide(pool, inner, *rest))
        selecting.select(open_rounds(Run(two_rounds_copy), None, list(settings), two_rounds_copy), number)
        return seen

    return inner_of


def of_round(run, number, fold):
    return table(run / (f"round-{number}" if number else "") / f"fold-{fold}" / "inner.parquet")


@pytest.mark.parametrize("number", [1, 2])
def test_a_fold_decides_by_its_own_inner_slides_of_the_round_before(inner_of, two_rounds, number):
    seen = inner_of(number)
    assert len(seen) == 2
    for fold, inner in enumerate(seen):
        wanted = of_round(two_rounds, number - 1, fold)
        pd.testing.assert_frame_equal(inner[list(wanted)], wanted)
        assert not inner.prob.equals(of_round(two_rounds, {1: 2, 2: 0}[number], fold).prob)


def test_pooled_folds_decide_by_the_inner_slides_of_all_in_the_round_before(inner_of, two_rounds):
    (inner,) = inner_of(2, "pseudo.pooled=true")
    wanted = pd.concat([of_round(two_rounds, 1, fold) for fold in (0, 1)], ignore_index=True)
    pd.testing.assert_frame_equal(inner[list(wanted)], wanted)


@pytest.mark.parametrize("marked", [True, False])
def test_a_round_bears_the_mark_of_its_round_0(fresh, make_rounds, marked):
    """Nothing is trained: the round ends with its decisions."""
    Run(fresh).update(selected_on_fold=marked)
    make_rounds(fresh, 1, "pseudo.stop_share=0.99")
    assert Run(fresh / "round-1").info()["selected_on_fold"] is marked
