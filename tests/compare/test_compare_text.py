"""A comparison in words: which runs differ measurably from the first, and which do not."""

import copy

import pytest

from pcam_ssl.compare.report import compare_text
from pcam_ssl.compare.verdict import epochs_text, short_count, verdict
from pcam_ssl.render.format import passes


def score(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "resamples": 100}


def run(name, auroc, gap=None, **more):
    names = ("auroc", "average_precision", "balanced_accuracy", "sensitivity_at_specificity_95", "nll", "ece")
    facts = {
        "network": "resnet18",
        "parameters": 11_200_000,
        "epochs": 10,
        "cost": {"patch_passes": 84_000, "cached": False},
        "kept": [10, 10],
        "patches_per_s": 85.4,
        "device": "cpu",
    }
    return {
        "name": name,
        "scores": {each: score(auroc, auroc - 0.05, auroc + 0.05) for each in names},
        "against_first": gap and dict.fromkeys(names, score(*gap)),
        "marks": [],
        "selected_on_fold": False,
        "held_out": None,
        "in_pool": {},
        **facts,
        **more,
    }


@pytest.fixture
def comparison():
    runs = [
        run("first", 0.8),
        run("better", 0.9, (0.1, 0.05, 0.15)),
        run("same", 0.81, (0.01, -0.02, 0.04)),
        run("worse", 0.7, (-0.1, -0.15, -0.05)),
    ]
    matrix = [[1.0 if i == j else (i + 2 * j) / 10 for j in range(4)] for i in range(4)]
    return {
        "dataset": "/data/set",
        "scheme": "grouped",
        "grouping": "slides",
        "n": 1243,
        "n_positive": 446,
        "n_slides": 34,
        "n_folds": 3,
        "interval": "95 % slide-clustered bootstrap, 100 resamples",
        "first": "first",
        "runs": runs,
        "groups": None,
        "correlation": {"pearson": matrix, "spearman": copy.deepcopy(matrix)},
    }


def lines(comparison) -> list[str]:
    """The lines of the text, the columns of its tables a space apart."""
    return [" ".join(line.split()) for line in compare_text(comparison).splitlines()]


def test_the_verdict_sorts_runs_by_what_their_interval_leaves_out(comparison):
    assert verdict(comparison).startswith(
        "Measurably better than first: better +0.100 (+0.050 to +0.150). Measurably worse than first: worse -0.100 (-0.150 to -0.050)."
        " Not distinguishable from first: same +0.010 (-0.020 to +0.040)."
    )


def test_the_text_begins_with_what_was_compared_and_ends_with_the_verdict(comparison):
    text = compare_text(comparison)
    assert text.startswith("4 runs on the same 1,243 patches (446 tumor) of 34 slides, 3 folds grouped by slides, of /data/set\n")
    assert "Measurably better than first: better" in text.rpartition("\n\n")[2]


def test_each_run_has_its_score_cost_and_correlations(comparison):
    rows = lines(comparison)
    assert "better 0.900 (0.850 to 0.950) +0.100 (+0.050 to +0.150) a gain" in rows
    assert "better resnet18 11.2 M 10 84,000 85 cpu" in rows
    assert "2 better 0.10 0.50 0.70" in rows


def test_no_line_is_wider_than_a_wide_terminal(comparison):
    assert max(map(len, compare_text(comparison).splitlines())) <= 170


def test_the_best_of_many_runs_is_said_to_score_too_well(comparison):
    assert "The best of 4 runs is chosen on the scored patches" in " ".join(compare_text(comparison).split())


def test_a_mark_of_all_runs_is_said_once(comparison):
    for each in comparison["runs"]:
        each["marks"] = ["stain clusters stand in for slides"]
    assert compare_text(comparison).count("stain clusters stand in for slides") == 1


def test_rates_of_different_devices_are_said_not_to_compare(comparison):
    comparison["runs"][1]["device"] = "NVIDIA H100"
    assert "measured on different devices" in compare_text(comparison)


def test_held_out_scores_are_listed_where_a_run_has_them(comparison):
    assert "held-out slides" not in compare_text(comparison)
    comparison["runs"][0]["held_out"] = {"test": score(0.75, 0.7, 0.8)}
    assert "first 0.800 (0.750 to 0.850) 0.750 (0.700 to 0.800) test" in lines(comparison)


@pytest.mark.parametrize(("kept", "text"), [(None, "10"), ([10, 10], "10"), ([4, 4], "10 (kept 4)"), ([4, 9], "10 (kept 4 to 9)")])
def test_epochs_tell_what_was_kept(kept, text):
    assert epochs_text({"epochs": 10, "kept": kept}) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [(None, "-"), ({"patch_passes": None, "cached": True}, "cached"), ({"patch_passes": 1234, "cached": False}, "1,234")],
)
def test_patch_passes_of_cached_features_and_earlier_versions(cost, text):
    assert passes(cost) == text


@pytest.mark.parametrize(("n", "text"), [(None, "-"), (999, "999"), (372_800, "373 k"), (21_285_698, "21.3 M")])
def test_counts_are_short(n, text):
    assert short_count(n) == text
