import json

import numpy as np
import pandas as pd
import pytest
from audit_patches import clean_patches, row, write

from pcam_ssl.audit.findings import Audit, Finding
from pcam_ssl.audit.report import as_dict, as_text
from pcam_ssl.audit.slides import audit_dataset, balance


@pytest.fixture
def audited(tmp_path):
    """audited(table, pixels): the Audit without a run."""

    def audited(table, pixels):
        dataset = write(tmp_path / "set", table, pixels)
        return Audit(dataset, audit_dataset(dataset, 3), balance(dataset.patches, "split"))

    return audited


@pytest.fixture
def leaky(audited):
    """An audit with a note (a0 = a2) and, found later, a leak."""
    table, pixels = clean_patches()
    pixels[row(table, "a2")] = pixels[row(table, "a0")]
    pixels[row(table, "test-b1")] = pixels[row(table, "b1")]
    return audited(table, pixels)


def doubted(n):
    return pd.DataFrame(
        {
            "id": [f"p{i:02}" for i in range(n)],
            "label": pd.array([1] * n, dtype="Int8"),
            "wsi": pd.array(["a", *[None] * (n - 1)], dtype="str"),
            "fold": pd.array([0] * n, dtype="Int8"),
            "loss": 2.5,
            "doubt_network": 0.9,
            "doubt_knn": [0.8, *[np.nan] * (n - 1)],
            "doubt": 0.72,
        }
    )


def test_the_verdict_comes_first_and_findings_follow_by_gravity(leaky):
    lines = as_text(leaky).splitlines()
    head = "36 patches, 6 slides: LEAK: scores on this data are too good until this is mended"
    assert lines[0] == f"{leaky.dataset.path}: {head}"
    assert [line.split()[0] for line in lines[2:7]] == ["LEAK", "note", "ok", "ok", "ok"]


def test_a_finding_is_one_line_with_what_where_how_many_the_first_and_the_next_move(leaky):
    assert as_text(leaky).splitlines()[2] == (
        "LEAK    exact duplicates: 1 group of exact duplicates (2 patches) are in more than one split (test, train): b1 = test-b1. "
        "Next: drop the copies from one split and import again; until then scores of that split are too good"
    )


def test_examples_that_are_not_named_are_counted(audited):
    audit = audited(*clean_patches())
    audit.findings[:] = [Finding("note", "import", "9 ids", 9, ("a", "b", "c"), "mend it")]
    assert as_text(audit).splitlines()[2] == "note    import: 9 ids: a; b; c; and 6 more. Next: mend it"


def test_the_table_of_splits_has_shares_and_dashes(audited):
    table, pixels = clean_patches()
    table.loc[table["split"] == "test", "label"] = None
    lines = as_text(audited(table, pixels)).splitlines()
    test, train = lines[-3:-1]
    assert test.split()[:4] == ["test", "12", "2", "-"]
    assert train.split()[:4] == ["train", "24", "4", "50.0%"]


def test_unknown_slides_stand_in_the_verdict(audited):
    table, pixels = clean_patches()
    table["wsi"] = None
    first = as_text(audited(table, pixels)).splitlines()[0]
    assert first.endswith("no slide ids: no leak found; slides are unknown, so shared slides cannot be ruled out")


def test_twenty_doubted_labels_are_listed_and_the_rest_counted(audited):
    audit = audited(*clean_patches())
    lines = as_text(Audit(audit.dataset, audit.findings, audit.by_split, "run", None, doubted(23))).splitlines()
    assert lines[-21].split() == ["p00", "1", "0.72", "0.90", "0.80", "2.50", "a"]
    assert lines[-20].split() == ["p01", "1", "0.72", "0.90", "-", "2.50", "-"]
    assert lines[-1] == "and 3 more (all with --json)"


def test_json_names_every_group_and_all_doubted_labels_and_has_no_nan(leaky):
    audit = Audit(leaky.dataset, leaky.findings, leaky.by_split, "run", None, doubted(23))
    told = json.loads(json.dumps(as_dict(audit), allow_nan=False))
    assert told["leaks"] == 1
    assert [finding["patches"] for finding in told["findings"][:2]] == [[["b1", "test-b1"]], [["a0", "a2"]]]
    assert len(told["suspicious_labels"]) == 23
    assert told["suspicious_labels"][1]["doubt_knn"] is None
    assert [part["split"] for part in told["by_split"]] == ["test", "train"]
