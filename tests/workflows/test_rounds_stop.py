"""When rounds end early: each rule by name, before a student is trained where it can be; and the planted check."""

import numpy as np
import pytest
from left_behind import table, trail

from pcam_ssl.files import read_json
from pcam_ssl.tables import write_table

PLANTED = ("pseudo.planted_share=0.3", "pseudo.planted_precision=0.999")


def students(path) -> list:
    return [*path.glob("*/model.safetensors"), *path.glob("*/last.pt"), *path.glob("oof.parquet")]


def change(path, **columns) -> None:
    """Write a table anew with other columns."""
    write_table(path, table(path).assign(**columns))


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("pseudo.stop_share=0.99", "pool patches would be added"),
        ("pseudo.stop_ratio=0.0001", "of what would be added is tumor"),
    ],
)
def test_a_rule_before_a_round_leaves_no_student(fresh, make_rounds, rule, words):
    told = make_rounds(fresh, 2, rule)
    assert words in told["stopped"] and told["stopped"].endswith(f"({rule})")
    assert len(told["rounds"]) == 1 and told["best"] == 0
    assert len(trail(fresh, 1, 0)) and not students(fresh / "round-1")
    assert not (fresh / "round-2").exists()


def test_too_many_flips_stop_before_the_round_that_would_learn_them(fresh, make_rounds):
    make_rounds(fresh, 1)
    for fold in (0, 1):
        path = fresh / "round-1" / f"fold-{fold}" / "pseudo.parquet"
        change(path, label=1 - trail(fresh, 1, fold).label)
    told = make_rounds(fresh, 2, "pseudo.stop_flips=0.01")
    assert "pseudo-labels changed their class" in told["stopped"] and "(pseudo.stop_flips=0.01)" in told["stopped"]
    assert len(told["rounds"]) == 2
    assert not students(fresh / "round-2")


@pytest.fixture
def perfect(fresh):
    """A round 0 that no round can beat on inner slides."""
    for fold in (0, 1):
        path = fresh / f"fold-{fold}" / "inner.parquet"
        change(path, prob=np.where(table(path).label == 1, 0.99, 0.01))
    return fresh


def test_a_round_that_is_no_better_is_the_last(perfect, make_rounds):
    told = make_rounds(perfect, 3, "pseudo.stop_worse=true")
    assert told["stopped"].startswith("round 1 is no better on the inner slides")
    assert told["stopped"].endswith("(pseudo.stop_worse=true)")
    assert (len(told["rounds"]), told["best"]) == (2, 0)
    assert not (perfect / "round-2").exists()


def test_rounds_made_under_other_rules_stay_in_the_verdict(perfect, make_rounds):
    make_rounds(perfect, 2)
    told = make_rounds(perfect, 3, "pseudo.stop_worse=true")
    assert len(told["rounds"]) == 3
    assert told["stopped"].startswith("round 2 is no better on the inner slides")


def test_the_rounds_that_were_asked_for_are_not_stopped_after_the_last(perfect, make_rounds):
    assert make_rounds(perfect, 1, "pseudo.stop_worse=true")["stopped"] is None


def test_a_planted_check_that_misses_stops_before_any_round(fresh, make_rounds):
    told = make_rounds(fresh, 2, *PLANTED)
    assert told["planted"]["met"] is False
    assert told["stopped"].startswith("the precision of planted pseudo-labels is below 0.999: ")
    assert "pseudo.planted_stop=true" in told["stopped"]
    assert len(told["rounds"]) == 1 and "nothing is known of a gain" in told["verdict"]
    assert not (fresh / "round-1").exists()


def test_it_goes_on_where_told_to_and_trains_the_check_once(fresh, make_rounds, capsys):
    make_rounds(fresh, 1, *PLANTED)
    made = (fresh / "planted" / "fold-0" / "model.safetensors").stat().st_mtime_ns
    told = make_rounds(fresh, 1, *PLANTED, "pseudo.planted_stop=false")
    assert told["planted"]["met"] is False and told["stopped"] is None
    assert len(told["rounds"]) == 2
    assert "WARNING: the precision of planted pseudo-labels is below 0.999" in capsys.readouterr().err
    assert (fresh / "planted" / "fold-0" / "model.safetensors").stat().st_mtime_ns == made


def test_a_planted_slide_trains_nothing_and_rounds_are_the_same_with_and_without_the_check(fresh, two_rounds, make_rounds):
    told = make_rounds(fresh, 1, "pseudo.planted_share=0.3", "pseudo.planted_folds=2")
    assert told["planted"]["folds"] == [0, 1]
    folds = table(fresh / "folds.parquet")
    for fold in (0, 1):
        planted = table(fresh / "planted" / f"fold-{fold}" / "oof.parquet")
        trains = (folds.fold != fold) & ~folds[f"inner_{fold}"] & folds.visible
        assert set(planted.id) < set(folds.id[trains])
        assert set(planted.wsi).isdisjoint(folds.wsi[trains & ~folds.id.isin(planted.id)])
        assert trail(fresh, 1, fold).equals(trail(two_rounds, 1, fold))
    of = {name: entry["of"] for name, entry in told["planted"]["classes"].items()}
    assert sum(of.values()) == sum(len(table(fresh / "planted" / f"fold-{fold}" / "oof.parquet")) for fold in (0, 1))


def test_a_threshold_that_no_inner_slide_proves_adds_nothing_and_says_so(fresh, make_rounds):
    told = make_rounds(fresh, 1, "pseudo.precision=0.999", "pseudo.k_best=null", "pseudo.stop_share=0.01")
    assert told["stopped"].startswith("0 of ")
    for fold in (0, 1):
        facts = read_json(fresh / "round-1" / f"fold-{fold}" / "selection.json")
        assert facts["nothing"].startswith(f"nothing is added: of {facts['pool']} patches, ")
        assert "no threshold proves a precision of 0.999" in facts["nothing"]
        assert set(trail(fresh, 1, fold).decision) == {"left out"}
