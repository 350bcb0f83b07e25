"""A sample of a user's patches that the demo trains on in minutes, with some slides held out to score it on."""

import numpy as np
import pandas as pd

from pcam_ssl.data.splits import inner_groups
from pcam_ssl.errors import UserError

LABELLED, HELD_OUT, UNLABELLED = 1500, 800, 1000
"""At most so many patches: with a label to train on, held out with a label, and without a label."""
HELD_OUT_SHARE = 0.25
LEAST_SLIDES, LEAST_OF_CLASS, LEAST_PATCHES = 8, 4, 30
ADVICE = "give more patches, or try `pcam-ssl demo` without --data"


def choose_sample(records: pd.DataFrame, source: str, seed: int = 0) -> pd.DataFrame:
    """The rows of a source's `records` to import, in their order; held-out slides are moved to the split test.

    Nothing is held out where the source has labelled test patches, or no slides. Of many slides each gives about as many patches.
    Raises UserError where there are too few labels, slides or patches of a class to show anything.
    """
    labelled = records.label.notna() & (records.split != "test")
    check_labelled(records[labelled], source)
    held_out = records.label.notna() & (records.split == "test")
    if not held_out.any() and records.wsi[labelled].notna().all():
        codes, _ = pd.factorize(records.wsi[labelled])
        chosen = inner_groups(codes, records.label[labelled].to_numpy(np.int64), HELD_OUT_SHARE, (seed, 11))
        moved = records.index[labelled][np.isin(codes, chosen)]
        records = records.assign(split=records.split.where(~records.index.isin(moved), "test"))
        held_out = records.index.to_series().isin(moved)
    parts = (
        (records[labelled & ~held_out], LABELLED),
        (records[held_out], HELD_OUT),
        (records[records.label.isna()], UNLABELLED),
    )
    kept = [even_draw(part, most, seed) for part, most in parts]
    return records.loc[np.sort(np.concatenate(kept))]


def even_draw(part: pd.DataFrame, most: int, seed: int) -> np.ndarray:
    """The index of at most `most` rows, drawn without regard to labels and as evenly over slides as these allow."""
    order = part.iloc[np.random.default_rng((seed, len(part))).permutation(len(part))]
    turn = order.groupby(order.wsi.fillna(""), sort=False).cumcount() if order.wsi.notna().any() else pd.Series(0, order.index)
    return turn.sort_values(kind="stable").index[:most].to_numpy()


def check_labelled(rows: pd.DataFrame, source: str) -> None:
    """Raises UserError where labelled patches cannot make folds and held-out slides."""
    if rows.empty:
        raise UserError(f"{source}: has no labelled training patches; the demo learns from labels, so {ADVICE}")
    counts = rows.label.value_counts()
    if len(counts) == 1:
        only = "tumor" if counts.index[0] == 1 else "normal"
        raise UserError(f"{source}: all {len(rows):,} labelled patches are {only}; two classes are needed, so {ADVICE}")
    if counts.min() < LEAST_PATCHES:
        raise UserError(f"{source}: has {counts.min()} labelled patches of one class; {LEAST_PATCHES} are needed, so {ADVICE}")
    if not rows.wsi.notna().all():
        return
    slides = rows.groupby("wsi").label.agg(["min", "max"])
    if len(slides) == 1:
        raise UserError(
            f"{source}: all {len(rows):,} labelled patches are of one slide ({slides.index[0]}), so no fold is possible; {ADVICE}"
        )
    fewest = min(int((slides["min"] == 0).sum()), int((slides["max"] == 1).sum()))
    if len(slides) < LEAST_SLIDES or fewest < LEAST_OF_CLASS:
        raise UserError(
            f"{source}: {len(slides)} slides, one class on {fewest} of them; the demo needs {LEAST_SLIDES} slides and each class on"
            f" {LEAST_OF_CLASS}, so {ADVICE}"
        )
