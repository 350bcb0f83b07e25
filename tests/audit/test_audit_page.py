import re

import numpy as np
import pandas as pd
import pytest
from audit_patches import clean_patches, row, write

from pcam_ssl.audit.findings import Audit, Finding
from pcam_ssl.audit.report import audit_document, page, write_page
from pcam_ssl.audit.slides import audit_dataset, balance
from pcam_ssl.errors import UserError
from pcam_ssl.render.document import plain
from pcam_ssl.render.text import outline


@pytest.fixture
def audited(tmp_path):
    """audited(change): the Audit of clean patches after `change(table, pixels)`."""

    def audited(change=lambda table, pixels: None, **more):
        table, pixels = clean_patches()
        change(table, pixels)
        dataset = write(tmp_path / "set", table, pixels)
        return Audit(dataset, audit_dataset(dataset, 3), balance(dataset.patches, "split"), **more)

    return audited


def copy_into_test(table, pixels):
    pixels[row(table, "test-b1")] = pixels[row(table, "b1")]


def test_a_leak_is_the_verdict_and_shows_its_patches(audited):
    audit = audited(copy_into_test)
    verdict, text = audit_document(audit).body[0], page(audit)
    assert (verdict.level, verdict.badge) == ("bad", "Leak")
    assert verdict.headline == "Scores on this data are too good until this is mended."
    assert [re.search(r'alt="patch ([^"]+)"', image)[1] for image in re.findall("<img[^>]+>", text)] == ["b1", "test-b1"]


def test_clean_patches_make_a_page_without_pictures(audited):
    audit = audited()
    text = page(audit)
    assert audit_document(audit).body[0].level == "good"
    assert "<img" not in text
    assert "Checks passed" in text


def test_names_are_escaped(audited):
    def rename(table, pixels):
        copy_into_test(table, pixels)
        table["wsi"] = table["wsi"].replace("b", "<script>x</script>")

    text = page(audited(rename))
    assert "<script" not in text
    assert "slide &lt;script&gt;x&lt;/script&gt;" in text


def test_the_page_needs_nothing_from_outside(audited):
    text = page(audited(copy_into_test))
    assert set(re.findall(r'(?:src|href)="([^":]+):', text)) == {"data"}
    assert "url(" not in text


def test_groups_beyond_twelve_are_counted(audited):
    audit = audited()
    audit.findings[:] = [Finding("suspect", "near duplicates", "15 pairs", 15, (), "look", tuple((i, i + 1) for i in range(15)))]
    text = page(audit)
    assert text.count("<img") == 24
    assert "3 more are not shown; --json lists them." in text


def test_doubted_labels_are_shown_with_their_doubts(audited):
    doubted = pd.DataFrame({"id": ["b1", "c2"], "label": [1, 0], "doubt": [0.72, 0.4], "doubt_network": [0.9, 0.5]})
    audit = audited(doubted=doubted.assign(doubt_knn=[0.8, np.nan]))
    rows = tuple((row(clean_patches()[0], name),) for name in ("b1", "c2"))
    audit.findings.append(Finding("suspect", "suspicious labels", "2 labels are doubted", 2, ("b1", "c2"), "look", rows))
    cards = [
        plain(entry.text) for entry in outline(audit_document(audit)) if entry.kind == "item" and "doubt " in plain(entry.text)
    ]
    assert cards == [
        "patch b1; train, tumor; slide b; doubt 0.72; network 0.90, kNN 0.80",
        "patch c2; train, normal; slide c; doubt 0.40; network 0.50",
    ]


def test_a_folder_that_cannot_be_written_is_named(audited, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/audit.html: cannot be written \(.+\); name another file"):
        write_page(tmp_path / "file" / "audit.html", audited())
