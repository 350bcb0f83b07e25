"""The verdict on rounds as text: numbers with their intervals, and a reason for each absent one."""

import json

import pytest
from rounds_verdicts import fold_facts, pooled, row, score, shares, verdict

from pcam_ssl.pseudo_labels.report import rounds_text
from pcam_ssl.pseudo_labels.verdict import SCORES, WITHHELD, verdict_sentence


def own(gain, auroc=0.956) -> dict:
    """`chosen_by_fold` with a difference of `gain` (value, half width) in every score."""
    return {
        "rounds": {"0": 2, "1": 1},
        "out_of_fold": dict.fromkeys(SCORES, score(auroc)),
        "against_round_0": dict.fromkeys(SCORES, score(*gain)),
    }


def stopped_at_once() -> dict:
    missed = verdict()["planted"] | {"met": False, "reason": "tumor 0.951 (0.930 to 0.972)"}
    return verdict(rounds=[row(0, 0.945, 0)], best=0, best_folder="runs/k", planted=missed, stopped="the planted check missed")


ALL = [verdict, pooled, stopped_at_once]


@pytest.mark.parametrize("told", ALL)
def test_fits_a_hundred_columns(told):
    assert max(map(len, rounds_text(told()).splitlines())) <= 100


@pytest.mark.parametrize("told", ALL)
def test_reads_the_same_from_rounds_json(told):
    assert rounds_text(json.loads(json.dumps(told()))) == rounds_text(told())


def test_the_verdict_ends_the_terminal_text_with_the_command_to_use_next():
    assert rounds_text(verdict(stopped="round 3 is no better")).splitlines()[-6:] == [
        "Verdict",
        "-------",
        "A gain.",
        "Stopped: round 3 is no better.",
        "Use round 2:",
        "  pcam-ssl predict runs/k/round-2 SOURCE --out FILE.parquet",
    ]


def test_the_command_is_never_broken():
    folder = "runs/" + "a long name " * 10
    assert f"\n  pcam-ssl predict {folder} SOURCE --out FILE.parquet" in rounds_text(verdict(best_folder=folder))


def test_a_round_says_what_it_learned_from():
    lines = rounds_text(verdict()).splitlines()
    assert "Round 2 was chosen among 3 (round 0 included) by the mean inner AUROC of the folds." in lines
    assert "0          800      -       -      -     -        -           -        0.946      0.310" in lines
    assert "2 best     800  1,412   1,530  2,900     0        7          42        0.958      0.310" in lines


def test_scores_stand_beside_their_difference_to_round_0():
    lines = rounds_text(verdict()).splitlines()
    assert "AUROC                  0       0.945 (0.935 to 0.955)" in lines
    assert "                       1       0.948 (0.938 to 0.958)  +0.003 (-0.001 to +0.007)  no measurable gain" in lines
    assert "                       2 best  0.957 (0.947 to 0.967)  +0.012 (+0.008 to +0.016)  a gain" in lines
    assert "                       own     0.956 (0.946 to 0.966)  +0.011 (+0.007 to +0.015)  a gain" in lines


def test_a_higher_nll_is_a_loss():
    block = rounds_text(verdict()).split("NLL (lower is better)")[1].split("balanced accuracy")[0]
    assert [line.split(")  ")[-1] for line in block.strip().splitlines()[2:]] == ["a loss", "a loss"]


def test_own_is_the_row_to_quote():
    text = rounds_text(verdict())
    assert "(fold 0 round 2, fold 1 round" in text
    assert "quote 'own', not 'best'" in " ".join(text.split())
    one_fold = verdict(chosen_by_fold=verdict()["chosen_by_fold"] | {"rounds": {"0": 2}})
    assert "before 'best'" not in rounds_text(one_fold)


def test_the_precision_check_is_shown_with_its_intervals():
    text = rounds_text(verdict())
    assert (
        "Pool of a fold: 5,000 patches (4,000 test, 1,000 hidden); 1,000 on slides with training labels\n(transductive).\n" in text
    )
    assert "Target precision 0.98: met, but the interval of tumor and of normal reaches below it.\n" in text
    assert "tumor   0.985 (0.975 to 0.995)  0.550 (0.540 to 0.560)    412        760" in text


def test_a_planted_precision_whose_interval_is_all_above_the_target_is_met():
    assert "Target precision 0.97: met.\n" in rounds_text(verdict(planted=verdict()["planted"] | {"target": 0.97}))


def test_rounds_that_added_nothing_to_a_fold_are_told_to_be_no_choice_of_it():
    rows = [row(0, 0.945, 0), row(1, 0.948, 0.003, facts=[fold_facts(), fold_facts(nothing="nothing is added")])]
    text = rounds_text(verdict(rounds=rows))
    assert "own leaves out rounds that added nothing to the fold" in text
    assert "own leaves out" not in rounds_text(verdict())


def test_unknown_slides_are_counted():
    pool = verdict()["pool"] | {"on_training_slides": 0.0, "without_slide": 12.0}
    assert "(4,000 test, 1,000 hidden); 12 of unknown slide." in rounds_text(verdict(pool=pool))


def test_a_missed_target_is_told_with_its_reason_and_no_table_of_rounds():
    text = rounds_text(stopped_at_once())
    assert "Target precision 0.98: MISSED: tumor 0.951 (0.930 to 0.972)." in text
    assert "Stopped: the planted check missed." in text
    assert "Out of fold" not in text


def test_without_a_precision_check_or_a_target_the_text_says_so():
    assert "No precision check (pseudo.planted_share=0)" in rounds_text(verdict(planted=None))
    aimless = verdict()["planted"] | {"target": None}
    assert "no target precision (pseudo.precision is null)" in rounds_text(verdict(planted=aimless))


def test_precision_and_coverage_stand_where_truth_is_known():
    text = rounds_text(verdict())
    assert "1      tumor   0.990 (0.985 to 0.995)  0.600 (0.550 to 0.650)  1,500    2,500" in text
    assert "no choice used these labels" in text


def test_unknown_truth_is_told_with_the_reason():
    rows = verdict()["rounds"]
    for entry in rows[1:]:
        entry["truth"] = shares() | {"known": 0}
    text = rounds_text(verdict(rounds=rows)).split("Precision and coverage of the pseudo-labels")[1]
    assert text.splitlines()[2] == "Not known: no label of the pool is known."


def test_an_undefined_precision_is_a_dash_and_explained():
    rows = verdict()["rounds"]
    broken = shares()
    broken["precision"]["tumor"] = score(None, reason="no tumor patch was added with a known label") | {"n": 0}
    rows[1]["truth"] = broken
    text = rounds_text(verdict(rounds=rows))
    assert "1      tumor                        -  0.600 (0.550 to 0.650)      0    2,500" in text
    assert "- : no tumor patch was added with a known label" in text


def test_classes_without_threshold_and_folds_without_additions_are_told():
    rows = verdict()["rounds"]
    rows[1]["facts"] = [fold_facts(unproven="tumor"), fold_facts(nothing="nothing is added: of 90 patches, 90 by pseudo.k_best")]
    text = rounds_text(verdict(rounds=rows))
    assert "round 1: in 1 of 2 folds no threshold proves the precision for tumor\n" in text
    assert "round 1: in 1 of 2 folds nothing is added: of 90 patches, 90 by pseudo.k_best\n" in text


def test_inductive_and_transductive_stand_apart():
    text = rounds_text(verdict()).split("Inductive and transductive AUROC")[1]
    assert "2 best  0.957 (0.947 to 0.967)  0.930 (0.920 to 0.940)         5,000" in text


def test_pooled_scores_are_withheld_wherever_they_would_stand():
    text = rounds_text(pooled())
    assert f"{WITHHELD[:60]}" in text
    assert "1 last  -                       -                        -" in text
    assert "- : no label of the pool is known" in text
    assert "0.948" not in text


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.003, 0.004), "No measurable gain: +0.003 (-0.001 to +0.007)"),
        ((0.011, 0.004), "A gain: +0.011 (+0.007 to +0.015)"),
        ((-0.011, 0.004), "A loss: -0.011 (-0.015 to -0.007)"),
    ],
)
def test_the_sentence_claims_what_each_folds_own_choice_shows(gain, words):
    assert verdict_sentence(verdict(chosen_by_fold=own(gain))) == (
        f"{words} in out-of-fold AUROC, from 0.945 to 0.956, with each fold's round chosen on its own inner slides. "
        "Over all folds round 2 of 2 is best on inner slides."
    )


def test_round_0_is_kept_where_no_round_beats_it():
    sentence = verdict_sentence(verdict(best=0, chosen_by_fold=own((0.0, 0.0), 0.945)))
    assert sentence.startswith("No measurable gain: +0.000")
    assert sentence.endswith("On the inner slides of all folds together none of 2 rounds beats round 0, so round 0 stays in use.")


def test_pooled_rounds_claim_nothing():
    sentence = verdict_sentence(pooled())
    assert sentence.startswith("Pooled: whether 1 round helped cannot be told.")
    assert sentence.endswith("Round 1 is the last one, not one proven best.")
    assert "gain" not in sentence


def test_pooled_rounds_are_not_said_to_be_chosen():
    assert "Round 1 is the last: the inner scores of pooled rounds are leaky, so no round was chosen by them." in rounds_text(
        pooled()
    )


def test_scores_of_one_class_claim_nothing():
    nothing = own((0.0, 0.0)) | {"out_of_fold": dict.fromkeys(SCORES, score(None, reason="one class only"))}
    assert verdict_sentence(verdict(chosen_by_fold=nothing)) == "Whether 2 rounds helped cannot be told: one class only."


def test_without_rounds_nothing_is_claimed():
    assert verdict_sentence(stopped_at_once()) == "No round was made, so nothing is known of a gain."
