"""The whole decision: order of the selectors, decisions, facts, changes between rounds."""

import json
import time

import numpy as np
import pandas as pd
import pytest
from pools import inner_of, pool_of

from pcam_ssl.pseudo_labels.selection import decide
from pcam_ssl.recipe.schema import Pseudo
from pcam_ssl.tables import DECISION_COLUMNS

INNER = inner_of({0: 60, 1: 60}, {})
PLAIN = Pseudo(precision=None, balance="none")


def decisions_of(pool, options=PLAIN, previous=None, inner=INNER):
    return decide(pool, inner, options, previous, "d1")[0]


def facts_of(pool, options=PLAIN, previous=None, inner=INNER):
    return decide(pool, inner, options, previous, "d1")[1]


def added(decisions) -> str:
    return "".join(decisions.id[decisions.decision == "added"])


def noisy_pool(n=500):
    rng = np.random.default_rng(0)
    hashes = [f"{bits:016x}" for bits in rng.integers(2**62, size=60)[rng.integers(60, size=n)]]
    slides = [f"s{slide}" if slide else None for slide in rng.integers(6, size=n)]
    probs = np.round(rng.random(n), 2).clip(0.01, 0.99)
    return pool_of(probs, wsi=slides, view_std=rng.random(n), knn_prob=rng.random(n), view_hash=hashes)


EVERYTHING = Pseudo(
    precision=0.9,
    confidence=0.6,
    view_std=0.95,
    agreement=True,
    k_best=90,
    top_share=0.3,
    duplicate_cap=4,
    slide_cap=25,
    round_cap=0.2,
    label="soft",
    weight="softmatch",
    weight_scale=0.5,
)


def test_decisions_have_their_columns_in_the_pools_order():
    pool = pool_of([0.9, 0.1, 0.6], view_std=[1, 2, 3])
    decisions = decisions_of(pool, Pseudo(precision=None, balance="none", confidence=0.8))
    assert {name: str(kind) for name, kind in decisions.dtypes.items()} == DECISION_COLUMNS
    assert decisions.id.tolist() == ["a", "b", "c"]
    assert decisions.decision.tolist() == ["added", "added", "left out"]
    assert decisions.label.tolist()[:2] == [1, 0]
    assert np.isnan(decisions.label[2])
    assert decisions.weight.tolist() == [1, 1, 0]
    assert set(decisions.network_digest) == {"d1"}


def test_reasons_say_by_what_rule():
    pool = pool_of([0.95, 0.6, 0.05])
    decisions = decisions_of(pool, Pseudo(precision=0.9, confidence=0.8, balance="none"))
    assert decisions.reason.tolist() == [
        "called tumor: beyond prob 0.9, from where a precision of 0.9 is proven; beyond prob 0.8",
        "prob 0.6 is below 0.9, from where a precision of 0.9 is proven for tumor",
        "called normal: beyond prob 0.1, from where a precision of 0.9 is proven; beyond prob 0.2",
    ]


def test_without_a_selector_all_are_added():
    decisions = decisions_of(pool_of([0.9, 0.5]))
    assert decisions.reason.tolist() == ["called tumor: nothing in the recipe leaves it out"] * 2


def test_soft_labels_are_the_probs():
    assert decisions_of(pool_of([0.9, 0.2]), PLAIN.model_copy(update={"label": "soft"})).label.tolist() == [0.9, 0.2]


def test_softmatch_takes_mean_and_variance_from_the_whole_pool():
    options = PLAIN.model_copy(update={"confidence": 0.7, "weight": "softmatch", "weight_scale": 2.0})
    weights = decisions_of(pool_of([0.6, 0.8, 1 - 1e-9]), options).weight
    np.testing.assert_allclose(weights, [0, 2, 2], rtol=1e-6)


def test_caps_count_only_what_earlier_selectors_left():
    # The surest patch of slide s is left out by its views before the cap of one a slide is applied.
    pool = pool_of([0.99, 0.9, 0.8], wsi=["s", "s", "s"], view_std=[3, 0, 0])
    assert added(decisions_of(pool, Pseudo(precision=None, balance="none", view_std=1, slide_cap=1))) == "b"


def test_balance_comes_before_the_round_cap():
    # Prior 0.5: two of each class stay; the cap of two then takes one of each. The other way around it would be tumor alone.
    pool = pool_of([0.99, 0.98, 0.97, 0.02, 0.02, 0.02, 0.52, 0.52], knn_prob=[0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1])
    decisions = decisions_of(pool, Pseudo(precision=None, agreement=True, round_cap=0.25))
    assert sorted(decisions.label.dropna()) == [0, 1]


def test_the_reason_names_the_first_selector_that_left_a_patch_out():
    pool = pool_of([0.6], view_std=[9])
    decisions = decisions_of(pool, Pseudo(precision=None, balance="none", confidence=0.9, view_std=1))
    assert decisions.reason[0].endswith("(pseudo.confidence)")


def test_facts_count():
    pool = pool_of([0.95, 0.95, 0.6, 0.05, 0.45])
    facts = facts_of(pool, Pseudo(precision=0.9))
    assert facts["pool"] == 5
    assert facts["prior"] == pytest.approx(0.6)
    assert facts["added"] == {"normal": 1, "tumor": 2}
    assert facts["left_out"] == {"precision": 2, "balance": 0}
    assert facts["change"] == {"new": 3, "kept": 0, "flipped": 0, "taken back": 0}
    assert facts["tumor_share"] == pytest.approx(2 / 3)
    assert facts["thresholds"]["tumor"]["prob"] == 0.9
    assert facts["nothing"] is None
    assert json.loads(json.dumps(facts)) == facts


def test_change_against_the_round_before():
    options = PLAIN.model_copy(update={"confidence": 0.8})
    before = decisions_of(pool_of([0.9, 0.9, 0.9, 0.5, 0.5]), options)
    now = pool_of([0.9, 0.1, 0.5, 0.9, 0.5])
    after = decisions_of(now, options, before.iloc[::-1])
    assert after.change.tolist() == ["kept", "flipped", "taken back", "new", ""]
    assert facts_of(now, options, before)["change"] == {"new": 1, "kept": 1, "flipped": 1, "taken back": 1}


def test_soft_labels_that_move_on_one_side_are_kept():
    options = PLAIN.model_copy(update={"label": "soft"})
    before = decisions_of(pool_of([0.9, 0.6]), options)
    assert decisions_of(pool_of([0.7, 0.4]), options, before).change.tolist() == ["kept", "flipped"]


def test_the_round_before_decides_nothing():
    pool, before = noisy_pool(), decisions_of(noisy_pool(), PLAIN)
    first, second = decisions_of(pool, EVERYTHING), decisions_of(pool, EVERYTHING, before)
    pd.testing.assert_frame_equal(first.drop(columns="change"), second.drop(columns="change"))


def test_the_order_of_rows_decides_nothing():
    pool = noisy_pool()
    shuffled = pool.sample(frac=1, random_state=1)
    inner = INNER.assign(prob=0.5 + (INNER.prob - 0.5) / 8)
    decisions, facts = decide(pool, inner, EVERYTHING, None, "d")
    other, other_facts = decide(shuffled, inner, EVERYTHING, None, "d")
    assert added(decisions)
    assert all(facts["left_out"].values())
    pd.testing.assert_frame_equal(other.sort_values("id", ignore_index=True), decisions.sort_values("id", ignore_index=True))
    assert other_facts == facts


def test_a_label_column_is_not_used():
    pool = noisy_pool()
    pd.testing.assert_frame_equal(decisions_of(pool.assign(label=1), EVERYTHING), decisions_of(pool, EVERYTHING))


@pytest.mark.parametrize("options", [Pseudo(), EVERYTHING], ids=["default", "everything"])
def test_an_empty_pool(options):
    decisions, facts = decide(pool_of([]), INNER, options, None, "d")
    assert len(decisions) == 0
    assert (facts["pool"], facts["prior"], facts["tumor_share"]) == (0, None, None)
    assert facts["nothing"] == "nothing is added: the pool holds no patch"


def test_a_pool_of_one_patch_cannot_be_balanced():
    decisions, facts = decide(pool_of([0.6]), INNER, Pseudo(precision=None, top_share=1), None, "d")
    assert decisions.reason[0] == "no normal patch is left to keep a tumor share of 0.6 (pseudo.balance)"
    assert facts["nothing"] == "nothing is added: of 1 patches, 1 by pseudo.balance left out"


def test_a_pool_of_one_patch_is_added_without_balance():
    assert facts_of(pool_of([0.95]))["added"] == {"normal": 0, "tumor": 1}


def test_nothing_proven_is_the_reason():
    inner = inner_of({0: 60, 1: 5}, {})
    facts = facts_of(pool_of([0.95, 0.95, 0.05]), Pseudo(precision=0.9), inner=inner)
    assert facts["nothing"].startswith(
        "nothing is added: of 3 patches, 2 by pseudo.precision, 1 by pseudo.balance left out; tumor: no threshold proves a precision of 0.9"
    )


def test_a_large_pool_is_decided_fast():
    rng = np.random.default_rng(0)
    n = 262_144
    hashes = [f"{bits:016x}" for bits in rng.integers(2**62, size=n)]
    pool = pool_of(
        rng.random(n).clip(1e-6, 1 - 1e-6), view_hash=hashes, knn_prob=rng.random(n), wsi=rng.integers(200, size=n).astype(str)
    )
    options = Pseudo(
        precision=0.9, confidence=0.6, agreement=True, slide_cap=2000, duplicate_cap=2, round_cap=0.3, weight="softmatch"
    )
    began_s = time.perf_counter()
    decide(pool, INNER, options, None, "d")
    assert time.perf_counter() - began_s < 4  # 0.8 s on a free core


def test_the_share_of_each_class_grows_with_the_round():
    options = Pseudo(precision=None, balance="none", class_share=0.34)
    pool = pool_of([0.9, 0.8, 0.7, 0.1, 0.2, 0.3])
    assert [added(decide(pool, INNER, options, None, "d", number=number)[0]) for number in (1, 2, 3)] == ["ad", "abde", "abcdef"]


def test_em_shifts_the_probs_to_the_share_it_finds():
    options = Pseudo(precision=None, balance="none", top_share=1, label="soft", prior="em")
    pool = pool_of([0.7, 0.2, 0.1, 0.05] * 10)
    decisions, facts = decide(pool, INNER, options, None, "d", labelled_share=0.5)
    assert facts["prior"] < pool.prob.mean()
    assert (decisions.label < pool.prob).all()
    assert decisions.label.mean() == pytest.approx(facts["prior"], abs=1e-3)


def test_a_pool_without_tumor_is_not_forced_into_balance():
    options = Pseudo(precision=None, top_share=1, balance="prior", prior="em")
    pool = pool_of(np.linspace(0.02, 0.7, 40))
    decisions, facts = decide(pool, INNER, options, None, "d", labelled_share=0.5)
    assert facts["prior"] < 1e-4
    assert facts["added"] == {"normal": 40, "tumor": 0}
    assert (decisions.reason == "called normal: among the surest 1 of the pool").all()


def test_em_is_not_used_where_inner_slides_show_that_the_probs_tell_nothing():
    options = Pseudo(precision=None, top_share=1, balance="prior", prior="em")
    pool, dull = pool_of(np.linspace(0.1, 0.6, 40)), INNER.assign(prob=np.where(INNER.label == 1, 0.52, 0.5))
    decisions, facts = decide(pool, dull, options, None, "d", labelled_share=0.5)
    assert facts["prior"] == pytest.approx(0.35)
    assert facts["not_em"].startswith(
        "pseudo.prior=em is not used: on inner slides the probs explain 3.9% of the variance of labels, less than 5%,"
    )
    assert decisions.prob.tolist() == pool.prob.tolist()
    assert decide(pool, INNER, options, None, "d", labelled_share=0.5)[1]["not_em"] is None
