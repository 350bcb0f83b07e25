"""The patches that a report shows, and their JSON."""

import json

import pandas as pd
import pytest
from report_pictures import pictures

from pcam_ssl.report.cases import Pictures, confident_errors, least_confident
from pcam_ssl.tables import predictions


@pytest.fixture
def scored() -> pd.DataFrame:
    """Patch a is right and sure, b wrong and sure, c wrong and unsure, d right and unsure, e wrong and as sure as b."""
    probs = [0.99, 0.9, 0.45, 0.52, 0.1]
    return predictions(["a", "e", "c", "d", "b"], [1, 0, 1, 1, 1], [None] * 5, 0, [0.0] * 5, probs=probs)


def test_the_most_confident_errors_come_first_and_correct_patches_never(scored):
    assert confident_errors(scored).id.tolist() == ["b", "e", "c"]


def test_the_least_confident_come_first_right_or_wrong(scored):
    assert least_confident(scored, 3).id.tolist() == ["d", "c", "b"]


def test_a_prob_of_one_half_is_called_tumor():
    table = predictions(["a", "b"], [1, 0], [None] * 2, 0, [0.0, 0.0], probs=[0.5, 0.5])
    assert confident_errors(table).id.tolist() == ["b"]


def test_nothing_wrong_is_nothing_to_show(scored):
    assert confident_errors(scored[scored.id == "a"]).empty


def test_json_holds_all_but_the_pixels():
    told = json.loads(json.dumps(pictures().to_dict()))
    (wrong,) = told["surest_wrong"]
    assert (wrong["id"], wrong["call"], wrong["label"], wrong["explained"]["centre_share"]) == ("0a1b", "normal", 1, 0.4)
    assert [each["id"] for each in wrong["neighbours"]] == ["n0", "n1"]
    assert told["maps"][0]["same_label"] == {"value": 0.8, "by_chance": 0.5}
    assert (told["maps"][0]["patches"], told["maps"][0]["of"]) == (4, 9)


def test_without_networks_the_reason_names_the_command():
    assert "`pcam-ssl report RUN`" in Pictures().no_maps
