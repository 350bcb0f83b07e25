"""Sentences on seeds, in text and page: with one seed the seed may explain a difference; over seeds the interval covers their spread."""

from html import unescape

import pytest
import scored

from pcam_ssl.compare.compare import compare_runs
from pcam_ssl.compare.report import compare_text, comparison_document, page
from pcam_ssl.compare.verdict import verdict
from pcam_ssl.render.text import values

DOUBT = "the seed may explain a difference"


@pytest.fixture(scope="module")
def compare(tmp_path_factory):
    """compare((skill, seed), ...): the comparison of runs of recipes `net-SKILL` with those seeds."""

    def compare(*runs):
        folder = tmp_path_factory.mktemp("runs")
        paths = []
        for skill, seed in runs:
            settings = (f"model.name=net-{skill}", f"seed={seed}")
            paths.append(
                scored.write_scored(folder / f"net-{skill}+seed-{seed}", seed=10 * skill + seed, skill=skill, settings=settings)
            )
        return compare_runs([str(run.path) for run in paths])

    return compare


@pytest.fixture(scope="module")
def seeded(compare):
    """Two recipes, the second much better, with three seeds each. Do not change it."""
    return compare(*((skill, seed) for skill in (1, 6) for seed in (0, 1, 2)))


def test_with_one_seed_each_the_seed_may_explain_the_difference(compare):
    found = compare((1, 0), (6, 0))
    assert verdict(found).startswith("Measurably better than net-1+seed-0: ")
    assert DOUBT in verdict(found)
    assert "Measurable difference" not in page(found) and DOUBT in unescape(page(found))


def test_over_seeds_the_verdict_is_of_recipes(seeded):
    gap = seeded["groups"][1]["against_first"]["auroc"]
    assert verdict(seeded).startswith(f"Measurably better than net-1: net-6 {gap['value']:+.3f} ({gap['low']:+.3f} to ")
    assert DOUBT not in verdict(seeded)
    assert "Measurable difference" in page(seeded)


def test_a_gain_of_every_run_is_no_gain_where_seeds_spread_too_far(seeded):
    other = {**seeded["groups"][1], "against_first": {"auroc": {"value": 0.1, "low": -0.1, "high": 0.3}}}
    doubted = {**seeded, "groups": [seeded["groups"][0], other]}
    assert all(run["against_first"]["auroc"]["low"] > 0 for run in seeded["runs"][3:])
    assert verdict(doubted).startswith("Not distinguishable from net-1: net-6")
    assert "a gain" not in compare_text(doubted)


def test_a_recipe_with_one_seed_among_others_is_named(compare):
    found = compare((1, 0), (1, 1), (6, 0))
    assert "One seed only, so the seed may explain the difference: net-6+seed-0." in verdict(found)
    assert "Measurable difference" not in page(found)


def test_seeds_of_one_recipe_are_not_ranked(compare):
    found = compare((1, 0), (1, 1), (1, 2))
    score = found["groups"][0]["scores"]["auroc"]
    assert f"One recipe with 3 seeds: AUROC {score['value']:.3f} on average" in verdict(found)
    assert not any(word in compare_text(found) for word in ("Measurably", "a gain", "a loss"))
    assert "One recipe, several seeds" in page(found)


def test_text_and_page_show_mean_spread_and_difference_of_each_recipe(seeded):
    for group in seeded["groups"]:
        score = group["scores"]["auroc"]
        said = f"{score['value']:.3f} on average, {score['min']:.3f} to {score['max']:.3f} over seeds (sd {score['sd']:.3f})"
        assert said in compare_text(seeded) and said in page(seeded)
    nll = seeded["groups"][1]["against_first"]["nll"]
    assert f"{nll['value']:+.3f} ({nll['low']:+.3f} to {nll['high']:+.3f})" in str(values(comparison_document(seeded)))


def test_the_best_of_many_is_counted_in_recipes(compare):
    found = compare((1, 0), (1, 1), (2, 0), (3, 0))
    assert "The best of 3 recipes" in " ".join(compare_text(found).split())
