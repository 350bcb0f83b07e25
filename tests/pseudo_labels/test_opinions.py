"""Several opinions on a pool, mixed by what inner patches show."""

import numpy as np
import pandas as pd
import pytest
from pools import pool_of
from scipy.special import expit

from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.opinions import check_opinions, mix_opinions
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.tables import calibrated_logits


def inner_of(sharpness: dict[str, float], n: int = 600, slides: int = 6) -> pd.DataFrame:
    """Inner patches with two opinions: logits of noise around `sharpness` x the true side."""
    rng = np.random.default_rng(0)
    labels = np.tile([0, 1], n // 2)
    table = pd.DataFrame({"id": [f"{i:04d}" for i in range(n)], "label": pd.array(labels, dtype="Int8")})
    table["wsi"] = pd.array([f"s{i // 2 % slides}" for i in range(n)], dtype="str")
    for name, clear in sharpness.items():
        table[name] = expit(2 * clear * rng.normal((2 * labels - 1) * clear, 1))
    return table


def pool_with(head, knn) -> pd.DataFrame:
    return pool_of(head, knn_prob=knn).assign(graph_prob=np.nan)


def test_one_opinion_is_taken_as_it_is():
    pool, inner = pool_with([0.2, 0.9], [0.7, 0.7]), inner_of({"prob": 1.0})
    mix = mix_opinions(pool, inner, ["head"])
    assert mix.pool.prob.tolist() == [0.2, 0.9]
    assert mix.inner.prob.tolist() == inner.prob.tolist()
    assert mix.facts is None


def test_knn_alone_takes_the_place_of_the_classifier():
    pool, inner = pool_with([0.2, 0.9], [0.7, 0.6]), inner_of({"prob": 1.0, "knn_prob": 0.5})
    assert mix_opinions(pool, inner, ["knn"]).pool.prob.tolist() == pytest.approx([0.7, 0.6])


def test_the_better_opinion_weighs_more():
    mix = mix_opinions(pool_with([0.9], [0.1]), inner_of({"prob": 1.0, "knn_prob": 0.8}), ["head", "knn"])
    weights = mix.facts["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    assert weights["head"] > weights["knn"] > 0


def test_a_mix_of_two_is_better_than_either():
    inner = inner_of({"prob": 0.8, "knn_prob": 0.8})
    mixed = mix_opinions(pool_with([0.9], [0.1]), inner, ["head", "knn"]).inner

    def nll(probs):
        return -np.log(np.where(inner.label == 1, probs, 1 - probs)).mean()

    assert nll(mixed.prob) < min(nll(inner.prob), nll(inner.knn_prob)) - 0.05


def test_disagreement_is_between_the_outermost_probs():
    mix = mix_opinions(pool_with([0.9, 0.4], [0.2, 0.4]), inner_of({"prob": 1, "knn_prob": 1}), ["head", "knn"])
    np.testing.assert_allclose(mix.pool.disagreement, [0.7, 0])


def test_no_inner_patch_is_mixed_with_weights_that_saw_its_slide():
    inner = inner_of({"prob": 0.5, "knn_prob": 1.5})
    own = inner.wsi == "s0"
    turned = inner.assign(label=inner.label.where(~own, 1 - inner.label))
    pool = pool_with([0.9], [0.1])
    logits = []
    for table in (inner, turned):
        mix = mix_opinions(pool, table, ["head", "knn"])
        # The temperature is one for all patches; what the weights gave is left without it.
        logits.append(calibrated_logits(mix.inner.prob) * mix.facts["temperature"])
    np.testing.assert_allclose(logits[0][own], logits[1][own], rtol=1e-9)
    assert not np.allclose(logits[0][~own], logits[1][~own], rtol=1e-3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda inner: inner[inner.label == 1], "the inner patches hold fewer than two classes"),
        (lambda inner: inner[inner.wsi == "s0"], "the inner patches are of one slide"),
        (lambda inner: inner[(inner.wsi == "s0") | (inner.label == 0)], "one class is on too few inner slides"),
    ],
)
def test_weights_are_equal_where_none_can_be_chosen(change, reason):
    inner = change(inner_of({"prob": 1.5, "knn_prob": 0.3})).reset_index(drop=True)
    mix = mix_opinions(pool_with([0.9], [0.1]), inner, ["head", "knn"])
    assert mix.facts["weights"] == {"head": 0.5, "knn": 0.5}
    assert mix.facts["reason"] == reason


def test_an_opinion_that_is_absent():
    with pytest.raises(UserError, match=r"pseudo.opinions: 1 patches have no graph_prob; leave graph out of it"):
        mix_opinions(pool_with([0.9], [0.1]), inner_of({"prob": 1.5}), ["head", "graph"])


def test_an_empty_pool():
    mix = mix_opinions(pool_with([], []), inner_of({"prob": 1, "knn_prob": 1}), ["head", "knn"])
    assert len(mix.pool) == 0


@pytest.mark.parametrize(
    ("settings", "blend", "problem"),
    [
        (["pseudo.weight=agreement"], False, "pseudo.weight=agreement compares opinions, and pseudo.opinions names one"),
        (["pseudo.opinions=head+knn"], False, "RUN has no kNN; train a run with neighbours.use=true"),
        (["pseudo.opinions=head+graph"], False, "RUN has no label propagation; train a run with graph.use=true"),
        (["pseudo.opinions=head+knn", "neighbours.use=true"], True, "RUN is a blend, whose members are its opinions"),
        (
            ["pseudo.opinions=head+knn", "method.name=metric", "method.classify=false"],
            False,
            "RUN has no classifier (method.classify=false); name knn and graph only",
        ),
    ],
)
def test_rounds_that_lack_an_opinion(settings, blend, problem):
    with pytest.raises(UserError) as refused:
        check_opinions(load_recipe(None, settings), "RUN", blend)
    assert problem in str(refused.value)


def test_an_opinion_that_the_recipe_does_not_know(command, tmp_path):
    done = command("pseudo-label", tmp_path / "run", "--set", "pseudo.opinions=head+graf")
    assert done.code == 2
    assert "pseudo.opinions" in done.problems[0]
    assert "head+graph" in done.problems[0]
