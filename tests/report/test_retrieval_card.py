"""kNN, blend and retrieval on the page."""

from laid_out import words

from pcam_ssl.report.scores import retrieval_section


def score(value: float) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def entry(value: float, gain: float) -> dict:
    return {"out_of_fold": {"scores": {"auroc": score(value)}}, "above_head": {"auroc": score(gain)}}


def scores(across: bool = True) -> dict:
    measures = {name: score(0.7) for name in ("precision_at_1", "r_precision", "map_at_r", "cmc_at_5")}
    retrieval = {
        "queried": 1243,
        "all_slides": measures,
        "across_slides": measures if across else None,
        "reason": "no slides known",
    }
    neighbours = {"knn": entry(0.9, -0.02), "blend": entry(0.93, 0.005), "retrieval": retrieval}
    return {"out_of_fold": {"scores": {"auroc": score(0.92)}}, "neighbours": neighbours}


def test_knn_and_blend_stand_beside_the_head_with_the_paired_difference():
    shown = words(retrieval_section(scores()))
    assert "|head|0.920|0.910 to 0.930|-|kNN|0.900|0.890 to 0.910|-0.020|-0.030 to -0.010|blend of head and kNN|0.930|" in shown


def test_retrieval_stands_in_all_slides_and_across_them():
    shown = words(retrieval_section(scores()))
    assert "1,243 queries" in shown
    assert shown.count("0.700|0.690 to 0.710|0.700|0.690 to 0.710") == 4


def test_unknown_slides_have_no_retrieval_across_them_and_say_so():
    shown = words(retrieval_section(scores(across=False)))
    assert "Not defined across slides: no slides known." in shown
    assert shown.count("0.700|0.690 to 0.710|-|") == 4


def test_a_run_without_knn_says_how_to_have_it():
    assert "`pcam-ssl metric-train`, or neighbours.use=true" in retrieval_section({"out_of_fold": {}}).absent


def test_label_propagation_stands_below_and_needs_no_knn():
    alone = {"out_of_fold": scores()["out_of_fold"], "graph": entry(0.91, -0.01)}
    shown = words(retrieval_section(alone))
    assert "|head|0.920|0.910 to 0.930|-|label propagation|0.910|0.900 to 0.920|-0.010|-0.020 to +0.000|" in shown
    assert "scored patches are not in it" in shown and "queries" not in shown
    assert "|label propagation|" in words(retrieval_section(scores() | {"graph": entry(0.91, -0.01)}))
