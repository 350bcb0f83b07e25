"""What can be found out about a dataset without a run: torn slides, duplicates, what the import left out, stain. No torch."""

import pandas as pd

from pcam_ssl.audit.balance import outlying_slides
from pcam_ssl.audit.duplicates import exact_findings, flat_finding
from pcam_ssl.audit.findings import Finding
from pcam_ssl.audit.near_findings import near_findings
from pcam_ssl.data.dataset import Dataset

NAMED, SHOWN = 3, 6


def audit_dataset(dataset: Dataset, near_bits: int, folds: pd.Series | None = None) -> list[Finding]:
    """Findings of all checks that need no embeddings. `folds` is the fold of each row that has one, given a run."""
    return [
        *slide_findings(dataset.patches),
        *exact_findings(dataset, folds),
        *near_findings(dataset, near_bits, folds),
        *flat_finding(dataset),
        *import_findings(dataset),
        *outlier_findings(dataset.patches),
    ]


def slide_findings(patches: pd.DataFrame) -> list[Finding]:
    """Slides with patches in two splits, and patches whose slide is unknown."""
    findings = []
    n_splits = patches.groupby("wsi")["split"].nunique()
    torn = n_splits.index[n_splits > 1]
    if len(torn):
        names = [f"{slide} ({', '.join(sorted(set(patches['split'][patches['wsi'] == slide])))})" for slide in torn[:NAMED]]
        what = f"{len(torn):,} of {len(n_splits):,} slides have patches in more than one split"
        move = "give each slide one split and import again"
        findings.append(Finding("leak", "slides in splits", what, len(torn), tuple(names), move))
    elif len(n_splits):
        findings.append(Finding("ok", "slides in splits", f"{len(n_splits):,} slides, none with patches in two splits"))
    without = patches[patches["wsi"].isna()]
    if len(without):
        where = ", ".join(f"{count:,} in {split}" for split, count in without["split"].value_counts().items())
        what = (
            f"the slide of {len(without):,} patches is unknown ({where}), so it cannot be checked whether slides are shared there"
        )
        findings.append(
            Finding("note", "slides in splits", what, len(without), (), "import again with --wsi CSV where there is one")
        )
    return findings


MISMATCHES = {
    "labels_without_image": "ids of the label csv have no image",
    "images_without_label": "images have no row in the label csv",
    "sample_ids_without_image": "ids of sample_submission.csv have no image",
    "test_images_not_in_sample": "test images are not in sample_submission.csv",
    "slide_ids_without_patch": "ids of the slide csv have no patch",
    "bad_images": "images could not be read and were left out",
    "meta_labels_differ": "rows of the PCam csv name another label than the y file, whose labels were taken",
}
"""Notes that an import leaves in manifest.json, as sentences."""


def import_findings(dataset: Dataset) -> list[Finding]:
    """What the import recorded: ids of csv files and images that did not match, images left out, files that are not the published ones."""
    notes = dataset.manifest["notes"]
    findings = []
    for key, sentence in MISMATCHES.items():
        if key in notes:
            note = notes[key] if isinstance(notes[key], dict) else {"count": notes[key], "first": []}
            examples = tuple(note["first"][:NAMED])
            move = "mend the csv or add the images, then import again, if they should be there"
            findings.append(Finding("note", "import", f"{note['count']:,} {sentence}", note["count"], examples, move))
    foreign = [name for name, state in notes.get("md5", {}).items() if state != "verified"]
    if foreign:
        what = f"{len(foreign):,} source files are not the published ones"
        findings.append(
            Finding("note", "import", what, len(foreign), tuple(foreign[:NAMED]), "download them again if they should be")
        )
    return findings or [Finding("ok", "import", "the import left nothing out, and every id found its partner")]


def outlier_findings(patches: pd.DataFrame) -> list[Finding]:
    """Slides whose tumor share or stain stands apart."""
    n_slides = patches["wsi"].nunique()
    apart = outlying_slides(patches)
    if not len(apart):
        text = f"none of {n_slides:,} slides has an outlying tumor share or stain"
        return [Finding("ok", "outlying slides", text)] if n_slides else []
    examples = tuple(f"{row.wsi} ({row.measure} {row.value:.2f}, z {row.z:+.1f})" for row in apart.head(NAMED).itertuples())
    what = f"{len(apart):,} of {n_slides:,} slides with an outlying tumor share or stain"
    move = "look at their patches; what looks foreign is better trained on than only tested on"
    rows = tuple(tuple(map(int, patches["row"][patches["wsi"] == slide].head(SHOWN))) for slide in apart["wsi"])
    return [Finding("note", "outlying slides", what, len(apart), examples, move, rows)]
