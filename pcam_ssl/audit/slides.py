"""Findings on slides: shared by splits or folds, outlying in stain or tumor share; and what the import left out."""

import pandas as pd

from pcam_ssl.audit.duplicates import exact_findings, flat_finding, near_findings
from pcam_ssl.audit.findings import Finding
from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.folds import check_groups
from pcam_ssl.errors import LeakError

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
    shared = n_splits.index[n_splits > 1]
    if len(shared):
        names = [f"{slide} ({', '.join(sorted(set(patches['split'][patches['wsi'] == slide])))})" for slide in shared[:NAMED]]
        what = f"{len(shared):,} of {len(n_splits):,} slides have patches in more than one split"
        move = "give each slide one split and import again"
        findings.append(Finding("leak", "slides in splits", what, len(shared), tuple(names), move))
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
"""Sentences for the notes of an import in manifest.json."""


def import_findings(dataset: Dataset) -> list[Finding]:
    """Findings from the notes of the import: ids without image or row, images left out, files that differ from the published ones."""
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
    """Slides with an outlying tumor share or stain."""
    n_slides = patches["wsi"].nunique()
    outliers = outlying_slides(patches)
    if not len(outliers):
        text = f"none of {n_slides:,} slides has an outlying tumor share or stain"
        return [Finding("ok", "outlying slides", text)] if n_slides else []
    examples = tuple(f"{row.wsi} ({row.measure} {row.value:.2f}, z {row.z:+.1f})" for row in outliers.head(NAMED).itertuples())
    what = f"{len(outliers):,} of {n_slides:,} slides with an outlying tumor share or stain"
    move = "look at their patches; what looks foreign is better trained on than only tested on"
    rows = tuple(tuple(map(int, patches["row"][patches["wsi"] == slide].head(SHOWN))) for slide in outliers["wsi"])
    return [Finding("note", "outlying slides", what, len(outliers), examples, move, rows)]


NAMED_PATCHES = 3
MOVE = "train again with cv.scheme=grouped; scores of this run are too good"


def fold_findings(frame: pd.DataFrame, source: str) -> list[Finding]:
    """Slides in two folds, or in both the training and the inner part of a fold; `frame` is that of `Folds`, `source` names it.

    The slides themselves are counted, whatever the folds claim to be grouped by. Where slides are unknown, groups are checked.
    """
    findings = []
    n_folds = frame.groupby("wsi")["fold"].nunique()
    split_slides = n_folds.index[n_folds > 1]
    if len(split_slides):
        names = tuple(f"{slide} ({n_folds[slide]} folds)" for slide in split_slides[:NAMED_PATCHES])
        what = f"{len(split_slides):,} of {len(n_folds):,} slides have patches in more than one fold"
        findings.append(Finding("leak", "slides in folds", what, len(split_slides), names, MOVE))
    shared = _slides_shared_with_inner(frame)
    if shared:
        names = tuple(f"{slide} (fold {', '.join(map(str, folds))})" for slide, folds in list(shared.items())[:NAMED_PATCHES])
        what = f"{len(shared):,} slides are in the training part and in the inner part of one fold"
        findings.append(Finding("leak", "slides in folds", what, len(shared), names, MOVE))
    if findings:
        return findings
    try:
        check_groups(frame, source)
    except LeakError as error:
        return [Finding("leak", "slides in folds", str(error), 1, (), MOVE)]
    if len(n_folds):
        return [Finding("ok", "slides in folds", f"{len(n_folds):,} slides, each whole in one fold, and inside it on one side")]
    what = f"slides are unknown, so only the {frame['group'].nunique():,} proxy groups were checked: each is whole in one fold"
    return [Finding("note", "slides in folds", what, 0, (), "import again with --wsi CSV to be sure")]


def _slides_shared_with_inner(frame: pd.DataFrame) -> dict[str, list[int]]:
    """By slide, the folds that have it both in the training and in the inner part."""
    shared: dict[str, list[int]] = {}
    for name in [name for name in frame.columns if name.startswith("inner_")]:
        fold = int(name.removeprefix("inner_"))
        both = frame[frame["fold"] != fold].groupby("wsi")[name].nunique()
        for slide in both.index[both > 1]:
            shared.setdefault(slide, []).append(fold)
    return shared


STAIN = ["od_r", "od_g", "od_b", "stain_h", "stain_e"]
FEWEST_SLIDES = 6
APART = 3.5
"""Robust z beyond which a value is an outlier (Iglewicz and Hoaglin 1993)."""


def balance(patches: pd.DataFrame, by) -> pd.DataFrame:
    """Number of patches and slides, tumor share of the labelled patches, and mean stain (optical density), by the values of `by` [N] (the index)."""
    table = patches.assign(label=patches["label"].astype("float64")).groupby(by, observed=True)
    counts = table.agg(patches=("id", "size"), slides=("wsi", "nunique"), tumor_share=("label", "mean"))
    return counts.join(table[STAIN].mean())


def robust_z(values: pd.Series) -> pd.Series:
    """0.6745 (x - median) / MAD, a z-score that outliers do not affect; 0 where more than half the values are equal."""
    deviations = values - values.median()
    mad = deviations.abs().median()
    return 0.6745 * deviations / mad if mad > 0 else deviations * 0.0


def outlying_slides(patches: pd.DataFrame) -> pd.DataFrame:
    """Slides with an outlying tumor share or stain: columns `wsi`, `measure`, `value`, `z`, largest |z| first.

    Each slide appears once, with the measure of its largest |z|. Empty where fewer than six slides are known.
    """
    columns = ["wsi", "measure", "value", "z"]
    slides = balance(patches, "wsi")
    if len(slides) < FEWEST_SLIDES:
        return pd.DataFrame(columns=columns)
    values = slides[["tumor_share", *STAIN]].rename_axis("measure", axis=1)
    z = values.apply(robust_z).stack().rename("z")
    found = pd.concat([values.stack().rename("value"), z], axis=1)[z.abs() > APART].reset_index()
    found = found.sort_values("z", key=abs, ascending=False, kind="stable").drop_duplicates("wsi")
    return found[columns].reset_index(drop=True)
