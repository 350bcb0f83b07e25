import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pcam_ssl.errors import UserError
from pcam_ssl.explain import explain as explain_fold_module
from pcam_ssl.explain.centre import centre_share
from pcam_ssl.explain.explain import explain_fold
from pcam_ssl.explain.explanation import toward
from pcam_ssl.explain.gradcam import GradCam
from pcam_ssl.models.artefact import load_network
from pcam_ssl.runs.networks import open_networks


@pytest.fixture(scope="module")
def facts(finished) -> dict:
    return explain_fold(finished.path, 1)


@pytest.fixture(scope="module")
def by_hand(finished):
    """Centre shares and labels of what fold 1 scored, patch by patch."""
    networks = open_networks(finished.path)
    cam = GradCam(load_network(finished.path / "fold-1", torch.device("cpu"))[0])
    scored = networks.folds.frame.id[networks.folds.frame.fold == 1]
    patches = networks.dataset.patches.set_index("id").loc[scored]
    shares, calls = [], []
    for row in patches.row:
        logit, maps = cam(torch.from_numpy(networks.dataset.pixels[[row]]))
        calls.append(int(logit >= 0))
        shares.append(centre_share(toward(maps.double().numpy(), calls[-1:]), networks.dataset.size_px)[0])
    return np.array(shares), np.array(calls) == patches.label.to_numpy(int)


def test_means_are_over_all_that_the_fold_scored(facts, by_hand):
    shares, right = by_hand
    known = np.isfinite(shares)
    assert (facts["n"], facts["flat"]) == (len(shares), (~known).sum())
    assert facts["all"]["value"] == pytest.approx(shares[known].mean(), abs=1e-5)
    assert (facts["right"]["n"], facts["wrong"]["n"]) == ((right & known).sum(), (~right & known).sum())
    assert facts["right"]["value"] == pytest.approx(shares[right & known].mean(), abs=1e-5)


def test_intervals_resample_slides(facts):
    assert facts["interval"].startswith("95 %, Student's t on 100 resamples of ")
    assert facts["all"]["low"] <= facts["all"]["value"] <= facts["all"]["high"]


def test_facts_are_json(facts):
    assert json.loads(json.dumps(facts, allow_nan=False))["even_share"] == pytest.approx((11 / 32) ** 2)


def test_an_unknown_fold_is_refused(finished):
    with pytest.raises(UserError, match=r"^--whole-fold 2: .* has no such finished fold; it has 0, 1$"):
        explain_fold(finished.path, 2)


def test_a_round_of_pooled_pseudo_labels_is_refused(finished, tiny_recipe, monkeypatch):
    networks = open_networks(finished.path)
    pooled = replace(networks, info={**networks.info, "command": "pseudo-label"}, recipe=tiny_recipe("pseudo.pooled=true"))
    monkeypatch.setattr(explain_fold_module, "open_networks", lambda *arguments: pooled)
    with pytest.raises(UserError, match=r"a round of pooled pseudo-labels, made by networks that saw the labels of fold 1"):
        explain_fold(finished.path, 1)
