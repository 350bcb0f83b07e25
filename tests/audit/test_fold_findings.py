import pandas as pd

from pcam_ssl.audit.slides import fold_findings


def frame(**columns):
    table = pd.DataFrame({"wsi": ["a", "a", "b", "b", "c", "c"], "fold": [0, 0, 1, 1, -1, -1]} | columns)
    table["group"] = columns.get("group", table["wsi"])
    for k in (0, 1):
        table[f"inner_{k}"] = columns.get(f"inner_{k}", [False] * 6)
    return table


def facts(findings):
    return [(finding.level, finding.count, finding.examples) for finding in findings]


def test_whole_slides_are_fine():
    assert facts(fold_findings(frame(inner_0=[False, False, True, True, False, False]), "f")) == [("ok", 0, ())]


def test_a_slide_in_two_folds_is_a_leak():
    (finding,) = fold_findings(frame(fold=[0, 1, 1, 1, -1, -1]), "f")
    assert facts([finding]) == [("leak", 1, ("a (2 folds)",))]
    assert finding.what == "1 of 3 slides have patches in more than one fold"


def test_a_slide_in_training_and_inner_part_is_a_leak():
    (finding,) = fold_findings(frame(inner_0=[False, False, True, False, True, False]), "f")
    assert facts([finding]) == [("leak", 2, ("b (fold 0)", "c (fold 0)"))]


def test_slides_count_even_where_folds_were_grouped_by_something_else():
    (finding,) = fold_findings(frame(fold=[0, 1, 1, 1, -1, -1], group=list("uvwxyz")), "f")
    assert facts([finding]) == [("leak", 1, ("a (2 folds)",))]


def test_a_proxy_group_split_across_folds_is_a_leak_where_slides_are_unknown():
    (finding,) = fold_findings(frame(wsi=[None] * 6, group=list("uuuvvv")), "folds.parquet")
    assert finding.level == "leak"
    assert finding.what.startswith("folds.parquet: group u is in 2 folds")


def test_whole_proxy_groups_are_noted_as_such():
    (finding,) = fold_findings(frame(wsi=[None] * 6, group=list("uuvvww")), "f")
    assert (finding.level, "3 proxy groups" in finding.what) == ("note", True)
