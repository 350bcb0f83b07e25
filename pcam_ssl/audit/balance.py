"""Tumor share and stain of splits, folds, and slides, and the slides that stand apart. No torch."""

import pandas as pd

STAIN = ["od_r", "od_g", "od_b", "stain_h", "stain_e"]
FEWEST_SLIDES = 6
APART = 3.5
"""Robust z beyond which a value stands apart (Iglewicz and Hoaglin 1993)."""


def balance(patches: pd.DataFrame, by) -> pd.DataFrame:
    """Patches, slides, tumor share of the labelled, and mean stain (optical density units) by the values of `by` [N], which stand in the index."""
    table = patches.assign(label=patches["label"].astype("float64")).groupby(by, observed=True)
    counts = table.agg(patches=("id", "size"), slides=("wsi", "nunique"), tumor_share=("label", "mean"))
    return counts.join(table[STAIN].mean())


def robust_z(values: pd.Series) -> pd.Series:
    """0.6745 (x - median) / MAD: the z of a normal distribution, unmoved by outliers; 0 where more than half the values are equal."""
    apart = values - values.median()
    spread = apart.abs().median()
    return 0.6745 * apart / spread if spread > 0 else apart * 0.0


def outlying_slides(patches: pd.DataFrame) -> pd.DataFrame:
    """Slides whose tumor share or stain stands apart from the other slides': columns `wsi`, `measure`, `value`, `z`, farthest first.

    Each slide appears once, with the measure in which it is farthest. Empty where fewer than six slides are known.
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
