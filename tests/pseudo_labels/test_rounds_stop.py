"""When rounds end early: each rule by name, before a student is trained where it can be; and the precision check."""

import shutil

import numpy as np
import pandas as pd
import pytest
from round_outputs import decisions, table

from pcam_ssl.files import read_json
from pcam_ssl.tables import read_table, write_table

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
    assert len(decisions(fresh, 1, 0)) and not students(fresh / "round-1")
    assert not (fresh / "round-2").exists()


def test_too_many_flips_stop_before_the_round_that_would_learn_them(fresh, make_rounds):
    make_rounds(fresh, 1)
    for fold in (0, 1):
        path = fresh / "round-1" / f"fold-{fold}" / "pseudo.parquet"
        change(path, label=1 - decisions(fresh, 1, fold).label)
    told = make_rounds(fresh, 2, "pseudo.stop_flips=0.01")
    assert "pseudo-labels changed their class" in told["stopped"] and "(pseudo.stop_flips=0.01)" in told["stopped"]
    assert len(told["rounds"]) == 2
    assert not students(fresh / "round-2")


@pytest.fixture
def all_normal(fresh, make_rounds):
    """A round 0 that calls every pool patch normal, with probs of about 0.3."""
    make_rounds(fresh, 1, "pseudo.stop_share=0.99")
    shutil.rmtree(fresh / "round-1")
    for path in [*fresh.glob("fold-*/pool.parquet"), *fresh.glob("fold-*/test.parquet")]:
        rows, notes = read_table(path)
        write_table(path, rows.assign(prob=np.linspace(0.28, 0.32, len(rows))), notes)
    return fresh


def test_one_class_alone_keeps_no_ratio_so_nothing_is_added(all_normal, make_rounds):
    told = make_rounds(all_normal, 2, "pseudo.balance=prior", "pseudo.stop_share=0.01")
    assert told["stopped"].startswith("0 of 42 pool patches would be added")
    facts = read_json(all_normal / "round-1" / "fold-0" / "selection.json")
    assert facts["nothing"] == "nothing is added: of 19 patches, 14 by pseudo.k_best, 5 by pseudo.balance left out"
    reasons = decisions(all_normal, 1, 0).reason
    assert reasons.str.match(r"no tumor patch is left to keep a tumor share of 0\.3\d* \(pseudo\.balance\)").sum() == 5
    assert not students(all_normal / "round-1")


def test_one_class_alone_is_off_the_prior_where_nothing_balances(all_normal, make_rounds):
    told = make_rounds(all_normal, 2, "pseudo.stop_ratio=0.25")
    assert told["stopped"] == (
        "0.000 of what would be added is tumor, and 0.300 of the pool is expected to be; they differ by more than 0.25 (pseudo.stop_ratio=0.25)"
    )
    assert not students(all_normal / "round-1")


@pytest.fixture(scope="module")
def one_class_inside(slides, rewrite, train, tmp_path_factory):
    """A run whose folds have tumor on one training slide each, so that none is left for their inner slides."""
    from pcam_ssl.data.dataset import open_dataset

    folder, patches = tmp_path_factory.mktemp("one-class"), open_dataset(slides).patches
    names = sorted(patches.wsi[patches.label.notna()].unique())
    frame = pd.DataFrame({"id": patches.id, "wsi": patches.wsi})[patches.label.notna()]
    tumor = frame.groupby("wsi").id.transform(lambda ids: [n % 2 for n in range(len(ids))]) * frame.wsi.isin(names[:2])
    data = rewrite(slides, folder / "slides", lambda rows: rows.assign(label=tumor.reindex(rows.index).astype("Int8")))
    return train(folder / "run", "train.batch_size=8", "train.epochs=1", data=data).path


def test_inner_slides_of_one_class_prove_no_precision(one_class_inside, make_rounds, tmp_path):
    path = shutil.copytree(one_class_inside, tmp_path / "run")
    told = make_rounds(path, 2, "pseudo.precision=0.6", "pseudo.k_best=null", "pseudo.stop_share=0.01")
    assert told["stopped"].startswith("0 of ")
    thresholds = read_json(path / "round-1" / "fold-0" / "selection.json")["thresholds"]
    assert thresholds["tumor"]["reason"].startswith("tumor: the inner slides hold normal patches only (")


def test_inner_slides_of_one_class_choose_no_round(one_class_inside, make_rounds, tmp_path):
    told = make_rounds(shutil.copytree(one_class_inside, tmp_path / "run"), 2, "pseudo.stop_worse=true")
    assert [row["inner"]["auroc"] for row in told["rounds"]] == [None] * 3
    assert (told["best"], told["stopped"], told["chosen_by_fold"]["rounds"]) == (0, None, {"0": 0, "1": 0})


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


def test_a_precision_check_below_target_stops_before_any_round(fresh, make_rounds, capsys):
    told, said = make_rounds(fresh, 2, *PLANTED), capsys.readouterr().err
    for name, entry in told["planted"]["classes"].items():
        found = entry["precision"]["value"]
        words = "not known (" if found is None else f"{found:.3f} ({entry['precision']['low']:.3f} to "
        assert f"precision check, {name}: precision {words}" in said
    assert told["planted"]["met"] is False
    assert told["stopped"].startswith("the precision of planted pseudo-labels is below 0.999: ")
    assert "pseudo.planted_stop=true" in told["stopped"]
    assert len(told["rounds"]) == 1 and "nothing is known of a gain" in told["verdict"]
    assert not (fresh / "round-1").exists()


def test_it_continues_with_planted_stop_false_and_trains_the_check_once(fresh, make_rounds, capsys):
    make_rounds(fresh, 1, *PLANTED)
    made = (fresh / "planted" / "fold-0" / "model.safetensors").stat().st_mtime_ns
    told = make_rounds(fresh, 1, *PLANTED, "pseudo.planted_stop=false")
    assert told["planted"]["met"] is False and told["stopped"] is None
    assert len(told["rounds"]) == 2
    assert "WARNING: the precision of planted pseudo-labels is below 0.999" in capsys.readouterr().err
    assert (fresh / "planted" / "fold-0" / "model.safetensors").stat().st_mtime_ns == made


def test_a_planted_slide_is_not_trained_on_and_rounds_are_the_same_with_and_without_the_check(fresh, two_rounds, make_rounds):
    told = make_rounds(fresh, 1, "pseudo.planted_share=0.3", "pseudo.planted_folds=2")
    assert told["planted"]["folds"] == [0, 1]
    folds = table(fresh / "folds.parquet")
    for fold in (0, 1):
        planted = table(fresh / "planted" / f"fold-{fold}" / "oof.parquet")
        trains = (folds.fold != fold) & ~folds[f"inner_{fold}"] & folds.visible
        assert set(planted.id) < set(folds.id[trains])
        assert set(planted.wsi).isdisjoint(folds.wsi[trains & ~folds.id.isin(planted.id)])
        assert decisions(fresh, 1, fold).equals(decisions(two_rounds, 1, fold))
    of = {name: entry["of"] for name, entry in told["planted"]["classes"].items()}
    assert sum(of.values()) == sum(len(table(fresh / "planted" / f"fold-{fold}" / "oof.parquet")) for fold in (0, 1))


def test_without_a_proven_threshold_nothing_is_added_and_the_reason_is_given(fresh, make_rounds):
    told = make_rounds(fresh, 1, "pseudo.precision=0.999", "pseudo.k_best=null", "pseudo.stop_share=0.01")
    assert told["stopped"].startswith("0 of ")
    for fold in (0, 1):
        facts = read_json(fresh / "round-1" / f"fold-{fold}" / "selection.json")
        assert facts["nothing"].startswith(f"nothing is added: of {facts['pool']} patches, ")
        assert "no threshold proves a precision of 0.999" in facts["nothing"]
        assert set(decisions(fresh, 1, fold).decision) == {"left out"}
