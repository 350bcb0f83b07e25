"""The verdict on rounds as text: numbers with their intervals, and a reason for each absent one."""

import json

import pytest
from rounds_verdicts import control, fold_facts, pooled, row, score, shares, verdict

from pcam_ssl.pseudo_labels.report import control as cost_section
from pcam_ssl.pseudo_labels.report import rounds_text
from pcam_ssl.pseudo_labels.verdict import SCORES, WITHHELD, round_in_use, verdict_sentence
from pcam_ssl.render.document import Table

GAIN, NONE, LOSS = (0.011, 0.004), (0.003, 0.004), (-0.011, 0.004)
"""Differences in AUROC: value and half the width of the interval."""


def own(gain, above=None, nll=NONE, nll_above=NONE, auroc=0.956) -> dict:
    """`chosen_by_fold` with differences in AUROC of `gain` to round 0 and of `above` to the control, in NLL of `nll` and `nll_above`."""
    return {
        "rounds": {"0": 2, "1": 1},
        "out_of_fold": dict.fromkeys(SCORES, score(auroc)),
        "against_round_0": dict.fromkeys(SCORES, score(*gain)) | {"nll": score(*nll)},
        "against_control": None if above is None else dict.fromkeys(SCORES, score(*above)) | {"nll": score(*nll_above)},
    }


def used(chosen, told, best_inner=2) -> dict:
    """The verdict with the round that these put in use."""
    best, why = round_in_use(best_inner, chosen, told)
    return verdict(chosen_by_fold=chosen, control=told, best_inner=best_inner, best=best, why=why)


def stopped_at_once() -> dict:
    missed = verdict()["planted"] | {"met": False, "reason": "tumor 0.951 (0.930 to 0.972)"}
    return verdict(
        rounds=[row(0, 0.945, 0)], best=0, best_inner=0, best_folder="runs/k", planted=missed, stopped="the planted check missed"
    )


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
    assert f"\n  pcam-ssl predict '{folder}' SOURCE --out FILE.parquet" in rounds_text(verdict(best_folder=folder))


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
    assert "1      tumor   0.990 (0.985 to 0.995)      0.975  0.600 (0.550 to 0.650)  1,500    2,500" in text
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
    assert "1      tumor                        -      0.975  0.600 (0.550 to 0.650)      0    2,500" in text
    assert "- : no tumor patch was added with a known label" in text


def test_classes_without_threshold_and_folds_without_additions_are_told():
    rows = verdict()["rounds"]
    rows[1]["facts"] = [fold_facts(unproven="tumor"), fold_facts(nothing="nothing is added: of 90 patches, 90 by pseudo.k_best")]
    text = rounds_text(verdict(rounds=rows))
    assert "round 1: in 1 of 2 folds no threshold proves the precision for tumor\n" in text
    assert "round 1: in 1 of 2 folds nothing is added: of 90 patches, 90 by pseudo.k_best\n" in text


@pytest.mark.parametrize(("n_slides", "times"), [(None, 2), (12, 0)])
def test_intervals_of_a_pool_without_slides_are_said_to_be_too_narrow(n_slides, times):
    told = verdict()
    for each in told["rounds"]:
        each["transductive"]["n_slides"] = n_slides
    text = " ".join(rounds_text(told).split())
    assert text.count("its intervals resample patches: they are too narrow where patches share a slide") == times


def test_inductive_and_transductive_stand_apart():
    text = rounds_text(verdict()).split("Inductive and transductive AUROC")[1]
    assert "2 best  0.957 (0.947 to 0.967)  0.930 (0.920 to 0.940)         5,000" in text


def test_pooled_scores_are_withheld_wherever_they_would_stand():
    text = rounds_text(pooled())
    assert f"{WITHHELD[:60]}" in text
    assert "1 last  -                       -                        -" in text
    assert "- : no label of the pool is known" in text
    assert "0.948" not in text


SCORED = "Out-of-fold AUROC goes from 0.945 to 0.956, with each fold's round chosen on its own inner slides."
ALONE = "over the control, which learned from the labels alone in as many steps"


@pytest.mark.parametrize(
    ("gain", "above", "words"),
    [
        (GAIN, GAIN, f"A gain: +0.011 (+0.007 to +0.015) over round 0, +0.011 (+0.007 to +0.015) {ALONE}."),
        (
            GAIN,
            NONE,
            f"Longer training gains as much in AUROC: +0.011 (+0.007 to +0.015) over round 0, +0.003 (-0.001 to +0.007) {ALONE}."
            " Set train.epochs=16 in place of rounds.",
        ),
        (
            GAIN,
            LOSS,
            f"Longer training gains more in AUROC: +0.011 (+0.007 to +0.015) over round 0, -0.011 (-0.015 to -0.007) {ALONE}."
            " Set train.epochs=16 in place of rounds.",
        ),
        (NONE, NONE, f"No measurable gain in AUROC: +0.003 (-0.001 to +0.007) over round 0, +0.003 (-0.001 to +0.007) {ALONE}."),
        (LOSS, NONE, f"A loss in AUROC: -0.011 (-0.015 to -0.007) over round 0, +0.003 (-0.001 to +0.007) {ALONE}."),
        (
            NONE,
            GAIN,
            f"A gain in AUROC over the control only: +0.003 (-0.001 to +0.007) over round 0, +0.011 (+0.007 to +0.015) {ALONE}."
            " Against round 0 there is no measurable gain in it.",
        ),
    ],
)
def test_the_sentence_compares_with_round_0_and_the_control(gain, above, words):
    assert verdict_sentence(used(own(gain, above), control())).startswith(f"{words} {SCORED}")


def test_rounds_that_no_fold_chose_gain_nothing_over_the_control():
    """Round 0 may beat longer training; that is no gain of rounds."""
    chosen = own(NONE, GAIN)
    chosen["rounds"] = dict.fromkeys(chosen["rounds"], 0)
    assert verdict_sentence(used(chosen, control())).startswith(
        "No measurable gain: no fold chose a round on its inner slides, so 'own' is round 0 itself. It gains +0.011 (+0.007 to +0.015)"
        f" {ALONE}: training on loses. {SCORED}"
    )


def test_a_gain_over_both_puts_the_best_round_in_use():
    told = used(own(GAIN, GAIN), control())
    assert told["best"] == 2
    assert verdict_sentence(told).endswith(
        f"{SCORED} Over all folds round 2 of 2 is the best on inner slides, with a measurable gain in AUROC over round 0 and the control,"
        " so it is used."
    )


@pytest.mark.parametrize(
    ("chosen", "gained"),
    [
        (own(NONE, NONE, nll=LOSS, nll_above=LOSS), "NLL over round 0 and the control"),
        (own(NONE, GAIN, nll=LOSS, nll_above=LOSS), "NLL over round 0 and in AUROC and NLL over the control"),
        (own(GAIN, NONE, nll=LOSS, nll_above=LOSS), "AUROC and NLL over round 0 and in NLL over the control"),
        (own(NONE, GAIN, nll=LOSS), "NLL over round 0 and in AUROC over the control"),
        (own(GAIN, GAIN, nll_above=GAIN), "AUROC over round 0 and the control"),
    ],
)
def test_a_gain_in_nll_counts_too(chosen, gained):
    told = used(chosen, control())
    assert (told["best"], told["why"]) == (2, f"the best on inner slides, with a measurable gain in {gained}")
    assert "in place of rounds" not in verdict_sentence(told)


@pytest.mark.parametrize(
    ("chosen", "told", "why"),
    [
        (own(GAIN, NONE), control(), "the rounds gain nothing measurable over the control"),
        (own(NONE, GAIN), control(), "the rounds gain nothing measurable over round 0"),
        (own(LOSS, LOSS), control(), "the rounds gain nothing measurable over round 0"),
        (own(NONE, NONE, nll=LOSS), control(), "the rounds gain nothing measurable over the control"),
        (own(LOSS, NONE, nll=LOSS, nll_above=LOSS), control(), "the AUROC of the rounds is measurably lower than that of round 0"),
        (
            own(NONE, LOSS, nll=LOSS, nll_above=LOSS),
            control(),
            "the AUROC of the rounds is measurably lower than that of the control",
        ),
        (own((-0.003, 0.004), NONE, nll=LOSS, nll_above=LOSS), control(), "the AUROC of the rounds is lower than its own"),
        (own(GAIN, GAIN, nll=GAIN), control(), "the NLL of the rounds is measurably worse"),
        (own(GAIN), None, "no control was trained, so no gain over longer training is shown"),
    ],
)
def test_without_a_gain_that_holds_round_0_stays_in_use(chosen, told, why):
    shown = used(chosen, told)
    assert (shown["best"], shown["why"]) == (0, why)
    assert verdict_sentence(shown).endswith(f"round 2 of 2 is best on inner slides, but round 0 stays in use: {why}.")


def test_a_gain_without_an_interval_has_its_reason():
    told = own(NONE, NONE)
    told["against_round_0"]["auroc"] = {"value": 0.01, "low": None, "high": None, "reason": "one slide only"}
    assert verdict_sentence(used(told, control())).startswith("Gain not known (one slide only). Out-of-fold")


def test_a_measurable_change_of_nll_is_told():
    sentence = verdict_sentence(used(own(GAIN, GAIN, nll=GAIN), control()))
    assert (
        f"{SCORED} NLL is measurably worse: +0.011 (+0.007 to +0.015) over round 0, +0.003 (-0.001 to +0.007) over the control."
        in sentence
    )
    assert f"{SCORED} NLL is measurably better: -0.011 (-0.015 to -0.007) over" in verdict_sentence(
        used(own(GAIN, GAIN, nll=LOSS), control())
    )
    assert "NLL is" not in verdict_sentence(used(own(GAIN, GAIN), control()))


def test_without_a_control_the_sentence_says_what_is_unknown():
    assert verdict_sentence(used(own(GAIN), None)).startswith(
        "A gain: +0.011 (+0.007 to +0.015) over round 0. No control was trained, so it is not known whether longer training alone does"
        " the same (--set pseudo.control=true tells)."
    )


def test_a_control_that_is_round_0_is_told():
    itself = control(is_round_0=True, folder=None, steps=None, round_0_steps=None, epochs=None)
    assert verdict_sentence(used(own(GAIN, GAIN), itself)).startswith(
        "A gain in AUROC: +0.011 (+0.007 to +0.015) over round 0, which is the control too: heads fitted to the optimum gain nothing by longer"
    )


@pytest.mark.parametrize("before", [[400, 420], None])
def test_a_control_that_trains_no_longer_than_round_0_is_not_called_longer_training(before):
    sentence = verdict_sentence(used(own(GAIN, NONE), control(round_0_steps=before)))
    assert sentence.startswith("Training on the labels alone gains as much in AUROC: ")
    assert "The recipe or the seed of the students explains the gain, not their pseudo-labels." in sentence
    assert "train.epochs" not in sentence


def test_round_0_is_kept_where_no_round_beats_it():
    sentence = verdict_sentence(used(own(NONE, NONE), control(), best_inner=0))
    assert sentence.startswith("No measurable gain in AUROC: +0.003")
    assert sentence.endswith("On the inner slides of all folds together none of 2 rounds beats round 0, so round 0 stays in use.")


def test_where_round_0_stays_the_last_line_names_it():
    told = used(own(GAIN, NONE), control()) | {"best_folder": "runs/k"}
    lines = rounds_text(told).splitlines()
    assert lines[-2:] == ["Use round 0:", "  pcam-ssl predict runs/k SOURCE --out FILE.parquet"]
    text = " ".join(rounds_text(told).split())
    assert (
        "Round 2 was chosen among 3 (round 0 included) by the mean inner AUROC of the folds. Round 0 is in use: the rounds" in text
    )


def costs(told) -> dict[str, list[str]]:
    """The rows of the table of costs: what stands after the name of a round, cell by cell."""
    (table,) = (block for block in cost_section(told).blocks if isinstance(block, Table))
    return {name: list(cells) for name, *cells in table.rows}


def test_cost_stands_beside_the_gain_over_the_control():
    rows = costs(verdict())
    assert rows["0"] == ["20,000", "0.945 (0.935 to 0.955)", "", ""]
    assert rows["2 best"] == ["60,000", "0.957 (0.947 to 0.967)", "+0.012 (+0.008 to +0.016)", "+0.010 (+0.006 to +0.014)"]
    assert rows["own"] == ["120,000", "0.956 (0.946 to 0.966)", "+0.011 (+0.007 to +0.015)", "+0.009 (+0.005 to +0.013)"]
    assert rows["control"] == ["52,480", "0.947 (0.937 to 0.957)", "+0.002 (-0.002 to +0.006)", ""]


def test_cost_that_is_cached_or_not_known_is_told():
    rows = verdict()["rounds"]
    rows[0]["cost"], rows[1]["cost"] = None, {"patch_passes": None, "cached": True}
    assert [cells[0] for cells in costs(verdict(rounds=rows)).values()] == ["-", "cached", "60,000", "-", "52,480"]


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (control(), "labels alone, as many steps and the same seed as the students of round 2."),
        (control(steps=None), "labels alone, fitted to the optimum."),
        (control(is_round_0=True, folder=None), "The control is round 0 itself"),
        (None, "No control was trained (pseudo.control=false)"),
    ],
)
def test_what_the_control_is_stands_above_the_costs(told, words):
    assert words in " ".join(rounds_text(verdict(control=told)).split())
    assert ("control" in costs(verdict(control=told))) == bool(told and not told["is_round_0"])


def test_a_score_that_decided_is_marked():
    assert "so its own score is a little too good" in " ".join(rounds_text(verdict()).split())
    assert "too good" not in rounds_text(verdict(decided_by_scores=False))


def test_verdicts_of_earlier_versions_are_shown():
    old = {key: value for key, value in verdict().items() if key not in ("control", "best_inner", "why", "decided_by_scores")}
    for entry in [*old["rounds"], old["chosen_by_fold"]]:
        entry.pop("against_control")
    assert "Cost and control" not in rounds_text(old)
    assert "2 best" in rounds_text(old)


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
    nothing = own(NONE) | {"out_of_fold": dict.fromkeys(SCORES, score(None, reason="one class only"))}
    assert verdict_sentence(verdict(chosen_by_fold=nothing)) == "Whether 2 rounds helped cannot be told: one class only."


def test_without_rounds_nothing_is_claimed():
    assert verdict_sentence(stopped_at_once()) == "No round was made, so nothing is known of a gain."
