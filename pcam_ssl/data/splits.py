"""Making folds: slides are kept whole, labels and stain are balanced, and each fold holds out inner slides. Without slide ids, stain
clusters replace slides."""

import hashlib
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from pcam_ssl.data.folds import Folds, check_groups, labelled_rows, read_folds, write_folds
from pcam_ssl.errors import UserError, nearest
from pcam_ssl.tables import FOLD_COLUMNS, conform

__all__ = ["Folds", "make_folds", "read_folds", "write_folds"]
SCHEMES = ("grouped", "official", "random")
N_STAIN_STRATA = 3


def make_folds(
    patches: pd.DataFrame,
    *,
    scheme: str = "grouped",
    n_folds: int = 5,
    inner_share: float = 0.15,
    label_budget: int | None = None,
    seed: int = 0,
    grouping: str = "auto",
    inner_folds: int = 0,
    slide_budget: int | None = None,
) -> Folds:
    """Folds of the labelled patches in the splits train and valid.

    `grouped` keeps slides whole; `official` trains on train and scores valid as fold 0; `random` ignores slides, to demonstrate
    leakage. `grouping` is `slides`, `stain clusters` (proxy groups), or `auto` (slides where they are known). `inner_share` is the
    share of a fold's visible training rows that is held out as inner slides; with `inner_folds` none are, and that many inner networks
    cross-fit (`part_columns`). `label_budget` keeps that many labels visible, `slide_budget` those of that many slides (stain clusters
    where slides are unknown), both chosen independently of the labels. Raises UserError where the patches allow no such folds.
    """
    rows = labelled_rows(patches)
    _check_request(rows, scheme, n_folds)
    labels = rows["label"].to_numpy(dtype=np.int64)
    groups, grouping, notes = _groups(rows, scheme, n_folds, grouping, seed)
    if scheme == "official":
        fold, n_folds = _official(rows, groups, grouping), 1
    elif scheme == "grouped":
        fold, stratum_notes = _grouped(rows, labels, groups, n_folds, seed)
        notes += stratum_notes
    else:
        fold = _random(labels, n_folds, seed)
    visible = _visible(rows, groups, scheme, label_budget, slide_budget, seed)
    frame = conform(rows[["id", "wsi"]].assign(group=groups, fold=fold, visible=visible), FOLD_COLUMNS)
    frame = frame.join(_inner(frame, labels, n_folds, inner_share, inner_folds, seed))
    check_groups(frame, f"cv.scheme {scheme}")
    folds = Folds(frame, grouping, inner_share=inner_share)
    notes += _class_notes(folds, labels) + _copy_notes(rows, frame, scheme)
    return replace(folds, notes=tuple(notes))


def with_budget(folds: Folds, patches: pd.DataFrame, label_budget: int | None, seed: int, slide_budget: int | None = None) -> Folds:
    """The same folds with `label_budget` labels visible, or those of `slide_budget` slides, chosen as by `make_folds`.

    Raises UserError where a fold would train on one class.
    """
    rows = labelled_rows(patches)
    visible = _visible(rows, folds.frame["group"], folds.scheme, label_budget, slide_budget, seed)
    hidden = replace(folds, frame=folds.frame.assign(visible=visible))
    notes = _class_notes(hidden, rows["label"].to_numpy(dtype=np.int64))
    return replace(hidden, notes=tuple(dict.fromkeys([*folds.notes, *notes])))


def with_inner(folds: Folds, patches: pd.DataFrame, inner_share: float, inner_folds: int, seed: int) -> Folds:
    """The same folds with other inner slides, or inner folds, chosen as by `make_folds`."""
    labels = labelled_rows(patches)["label"].to_numpy(dtype=np.int64)
    old = [name for name in folds.frame.columns if name.startswith(("inner_", "part_"))]
    frame = folds.frame.drop(columns=old)
    frame = frame.join(_inner(frame, labels, folds.n_folds, inner_share, inner_folds, seed))
    return replace(folds, frame=frame, inner_share=inner_share)


def _inner(frame: pd.DataFrame, labels: np.ndarray, n_folds: int, share: float, inner_folds: int, seed: int) -> pd.DataFrame:
    if inner_folds:
        return part_columns(frame, labels, n_folds=n_folds, inner_folds=inner_folds, seed=seed)
    return inner_columns(frame, labels, n_folds=n_folds, share=share, seed=seed)


def _check_request(rows: pd.DataFrame, scheme: str, n_folds: int) -> None:
    if scheme not in SCHEMES:
        raise UserError(f"cv.scheme {scheme!r} is unknown; choose one of {', '.join(SCHEMES)}.{nearest(scheme, SCHEMES)}")
    if rows.empty:
        raise UserError("the dataset has no labelled patches in its train and valid splits; import it again with its labels")
    if scheme == "official":
        absent = [split for split in ("train", "valid") if not (rows["split"] == split).any()]
        if absent:
            raise UserError(f"cv.scheme official needs labelled patches in the split {absent[0]}; use cv.scheme grouped")
    elif n_folds < 2:
        raise UserError(f"cv.folds is {n_folds}; ask for 2 or more")


def _groups(rows, scheme, n_folds, grouping, seed) -> tuple[pd.Series, str, list[str]]:
    """Group of each row, the name of the grouping, and notes about it."""
    if scheme == "random":
        note = "cv.scheme random: patches of one slide are in training and scoring, so scores are too good; report grouped"
        return rows["id"], "none", [note]
    n_known = int(rows["wsi"].notna().sum())
    if grouping in ("auto", "slides") and 0 < n_known < len(rows):
        raise UserError(
            f"slide ids are known for {n_known} of {len(rows)} labelled patches; import again with a slide csv "
            "that covers all (--wsi CSV), or with none, for stain clusters"
        )
    if grouping == "slides" and not n_known:
        raise UserError("the dataset has no slide ids; import it again with --wsi CSV")
    if grouping != "stain clusters" and n_known:
        return rows["wsi"], "slides", []
    n_clusters = max(20, 4 * n_folds)
    note = (
        f"slides are not used: {n_clusters} stain clusters stand in for them, and patches of one slide can still be in two folds, "
        "so scores may be too good; import again with --wsi CSV to group by slide"
    )
    if scheme == "grouped":
        return proxy_groups(rows, n_clusters, seed), "stain clusters", [note]
    parts = [split + "-" + proxy_groups(part, n_clusters, seed) for split, part in rows.groupby("split")]
    note = f"no slide ids: train and valid are taken to share no slide, and inner slides are stain clusters ({n_clusters} in train)"
    return pd.concat(parts).sort_index(), "stain clusters", [note]


def _check_classes(labels: np.ndarray, n_folds: int) -> None:
    n_normal, n_tumor = np.bincount(labels, minlength=2)
    if min(n_normal, n_tumor) < n_folds:
        raise UserError(
            f"{n_tumor} tumor and {n_normal} normal patches cannot make {n_folds} folds; set cv.folds lower, or import more"
        )


def _official(rows: pd.DataFrame, groups: pd.Series, grouping: str) -> np.ndarray:
    shared = sorted(set(groups[rows["split"] == "train"]) & set(groups[rows["split"] == "valid"]))
    if shared:
        raise UserError(f"{len(shared)} {grouping} are in both train and valid, first {shared[0]}; use cv.scheme grouped")
    return np.where(rows["split"] == "valid", 0, -1)


def _grouped(rows, labels, groups, n_folds, seed) -> tuple[np.ndarray, list[str]]:
    from sklearn.model_selection import StratifiedGroupKFold

    n_groups = groups.nunique()
    if n_groups == 1:
        raise UserError(
            f"all {len(rows)} labelled patches are of one slide ({groups.iloc[0]}), so no fold is possible; import more slides"
        )
    if n_groups < n_folds:
        raise UserError(f"{n_groups} slides cannot make {n_folds} folds; set cv.folds to {n_groups} or less, or import more slides")
    _check_classes(labels, n_folds)
    strata, notes = _strata(rows, labels, groups, n_folds, seed)
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    return _fold_of_row(splitter.split(labels, strata, groups), len(rows)), notes


def _random(labels: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    from sklearn.model_selection import StratifiedKFold

    _check_classes(labels, n_folds)
    return _fold_of_row(StratifiedKFold(n_folds, shuffle=True, random_state=seed).split(labels, labels), len(labels))


def _fold_of_row(parts, n_rows: int) -> np.ndarray:
    fold = np.empty(n_rows, dtype=np.int8)
    for number, (_, scored) in enumerate(parts):
        fold[scored] = number
    return fold


def _strata(rows, labels, groups, n_folds, seed) -> tuple[np.ndarray, list[str]]:
    """Stratum [N] = label x stain cluster of the slide, with fewer clusters where a cluster has fewer slides than folds."""
    for n_clusters in range(N_STAIN_STRATA, 1, -1):
        cluster_of_group = slide_clusters(rows, groups, n_clusters, seed)
        strata = labels + 2 * cluster_of_group.loc[groups].to_numpy()
        smallest = min(cluster_of_group.value_counts().min(), np.unique(strata, return_counts=True)[1].min())
        if smallest >= n_folds:
            fewer = f"folds are balanced over {n_clusters} stain clusters, not {N_STAIN_STRATA}: too few slides look alike"
            return strata, [fewer] if n_clusters < N_STAIN_STRATA else []
    return labels, [f"folds are balanced by label alone: too few slides look alike for {n_folds} folds of each stain"]


def _visible(
    rows: pd.DataFrame, groups: pd.Series, scheme: str, label_budget: int | None, slide_budget: int | None, seed: int
) -> np.ndarray:
    """Bool [N]: rows whose label may be trained on. Their ids, or groups, are the first in hash order, independent of the labels."""
    trainable = np.flatnonzero(rows["split"] == "train") if scheme == "official" else np.arange(len(rows))
    visible = np.ones(len(rows), dtype=bool)
    if slide_budget is not None:
        if scheme == "random":
            raise UserError("data.slide_budget: cv.scheme random splits slides; use cv.scheme grouped, or data.label_budget")
        of_row = groups.iloc[trainable]
        kept = _first_names(of_row.unique(), "data.slide_budget", slide_budget, "slides", seed)
        visible[trainable] = of_row.isin(kept)
    elif label_budget is not None:
        ids = rows["id"].iloc[trainable]
        visible[trainable] = ids.isin(_first_names(ids, "data.label_budget", label_budget, "labels", seed))
    return visible


def _first_names(names, key: str, budget: int, unit: str, seed: int) -> set[str]:
    """The first `budget` names in hash order. A smaller budget keeps a part of what a larger one keeps."""
    if not 2 <= budget <= len(names):
        raise UserError(f"{key} is {budget}, but there are {len(names)} {unit} to train on; ask for 2 to that many")
    return set(sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())[:budget])


def _class_notes(folds: Folds, labels: np.ndarray) -> list[str]:
    """Notes about parts of a fold with one class only. Raises UserError where a fold would train on one class."""
    notes = []
    for fold in range(folds.n_folds):
        if len(np.unique(labels[folds.train_mask(fold)])) < 2:
            raise UserError(
                f"fold {fold} would train on one class only; change cv.folds or seed, import slides with the other class, "
                "or raise data.label_budget or data.slide_budget"
            )
        for part, mask in (("inner slides", folds.inner_mask(fold)), ("scored patches", folds.score_mask(fold))):
            if len(np.unique(labels[mask])) < 2:
                notes.append(f"fold {fold}: its {part} hold one class only, so no AUC can be computed on them alone")
    return notes


def _copy_notes(rows: pd.DataFrame, frame: pd.DataFrame, scheme: str) -> list[str]:
    """A note about patches with an exact copy (same pixels) in another fold."""
    n_copies = int((frame["fold"].groupby(rows["pixel_hash"]).transform("nunique") > 1).sum())
    if not n_copies or scheme == "random":
        return []
    return [f"{n_copies} patches have an exact copy in another fold; `pcam-ssl data audit` names them"]


N_CANDIDATES = 64
SEVERAL = 3
"""Each class should be on this many inner slides, where training keeps at least twice as many."""


def inner_groups(codes: np.ndarray, labels: np.ndarray, share: float, seed) -> np.ndarray:
    """Codes of the inner groups, from group codes [N] and labels [N] of a fold's visible training rows.

    The best of several seeded random draws of whole groups is taken. First, training and inner part must both hold both classes. Then
    the inner part should hold several slides of each class, because a temperature or threshold from one slide fits only that slide.
    Last, it should be close to `share` of the rows and to the overall share of tumor. Raises ValueError for fewer than two groups.
    """
    names, codes = np.unique(codes, return_inverse=True)
    if len(names) < 2:
        raise ValueError("fewer than two groups")
    sizes = np.bincount(codes)
    tumors = np.bincount(codes, weights=labels)
    holds = np.stack([tumors < sizes, tumors > 0])  # [2, G] normal, tumor
    generator = np.random.default_rng(seed)
    # With very many groups any draw is good enough.
    orders = [generator.permutation(len(names)) for _ in range(min(N_CANDIDATES, 1 + 10**6 // len(names)))]
    candidates = [chosen for order in orders for chosen in _draws(order, sizes, share)]
    best = min(candidates, key=lambda chosen: _cost(chosen, sizes, tumors, holds, share))
    return names[best]


def inner_columns(frame: pd.DataFrame, labels: np.ndarray, *, n_folds: int, share: float, seed: int) -> pd.DataFrame:
    """Bool columns `inner_0` .. for a frame with `group`, `fold`, `visible`; `labels` [N] are 0 or 1.

    The column of fold K depends only on visible labels outside fold K. Raises UserError where a fold has only one group to train on.
    """
    codes, _ = pd.factorize(frame["group"])
    columns = {}
    for fold in range(n_folds):
        training = (frame["fold"] != fold).to_numpy(dtype=bool)
        usable = training & frame["visible"].to_numpy()
        try:
            chosen = inner_groups(codes[usable], labels[usable], share, (seed, fold))
        except ValueError:
            raise UserError(
                f"fold {fold} has {len(np.unique(codes[usable]))} labelled slides to train on, and one more is needed "
                "to choose by; add slides, ask for more folds (cv.folds), or raise data.label_budget or data.slide_budget"
            ) from None
        columns[f"inner_{fold}"] = training & np.isin(codes, chosen)
    return pd.DataFrame(columns, index=frame.index)


def part_columns(frame: pd.DataFrame, labels: np.ndarray, *, n_folds: int, inner_folds: int, seed: int) -> pd.DataFrame:
    """Columns `inner_K` and `part_K` of each fold, and `part_K` of the refit (K = `n_folds`), for cross-fitting.

    `part_K` assigns each group that fold K trains on to one of `inner_folds` inner folds, or fewer where there are few groups. It depends only
    on visible labels outside fold K. Raises UserError where the labels of a fold allow no two inner folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    scored, visible = frame["fold"].to_numpy(np.int64), frame["visible"].to_numpy()
    columns = {}
    for fold in range(n_folds + 1):
        # The refit learns from what any fold learns from; the one official fold scores the valid split.
        training = scored != (0 if n_folds == 1 else fold)
        usable = training & visible
        groups = frame["group"][usable].to_numpy()
        # scikit-learn refuses more folds than the larger class has patches.
        most = min(inner_folds, len(np.unique(groups)), np.bincount(labels[usable], minlength=2).max())
        for n_parts in range(most, 1, -1):
            state = int(np.random.SeedSequence((seed, 11, fold)).generate_state(1)[0])
            splitter = StratifiedGroupKFold(n_parts, shuffle=True, random_state=state)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a class with fewer patches than inner folds is looked at below
                parts = [part for part in splitter.split(groups, labels[usable], groups) if len(part[1])]
            if all(len(np.unique(labels[usable][rest])) == 2 for rest, _ in parts):
                break
        else:
            raise UserError(
                f"fold {fold} has too few slides of each class to cross-fit; set cv.inner_folds=0, add slides, or raise data.label_budget or data.slide_budget"
            )
        of_group = pd.Series(_fold_of_row(parts, len(groups)), index=groups).groupby(level=0).first()
        part = np.where(training, of_group.reindex(frame["group"]).fillna(-1), -1).astype(np.int8)
        columns[f"part_{fold}"] = pd.array(part, dtype="Int8")
        if fold < n_folds:
            columns[f"inner_{fold}"] = part >= 0
    return pd.DataFrame(columns, index=frame.index)


def _draws(order: np.ndarray, sizes: np.ndarray, share: float) -> list[np.ndarray]:
    """Leading groups of `order`: as many as come closest to `share` of the rows, and a few more up to twice the share. At least one, never all."""
    filled = np.cumsum(sizes[order])[:-1]
    nearest = np.abs(filled - share * sizes.sum()).argmin()
    more = np.searchsorted(filled, 2 * share * sizes.sum(), side="right") - 1 - nearest
    return [order[: nearest + extra + 1] for extra in range(min(max(more, 0), 2 * SEVERAL) + 1)]


def _cost(
    chosen: np.ndarray, sizes: np.ndarray, tumors: np.ndarray, holds: np.ndarray, share: float
) -> tuple[bool, bool, int, float]:
    n_rows, n_tumor = sizes[chosen].sum(), tumors[chosen].sum()
    n_left, n_tumor_left = sizes.sum() - n_rows, tumors.sum() - n_tumor
    imbalance = abs(n_rows / sizes.sum() - share) + abs(n_tumor / n_rows - tumors.sum() / sizes.sum())
    wanted = np.minimum(SEVERAL, holds.sum(axis=1) // 3)
    missing = np.maximum(wanted - holds[:, chosen].sum(axis=1), 0).sum()
    return not 0 < n_tumor_left < n_left, not 0 < n_tumor < n_rows, int(missing), imbalance


SLIDE_STATISTICS = ["od_r", "od_g", "od_b", "stain_h", "stain_e"]
PATCH_STATISTICS = [*SLIDE_STATISTICS, "brightness"]


def cluster(features: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """K-means cluster [N] of standardised features [N, D]; at most as many clusters as distinct rows."""
    from sklearn.cluster import KMeans

    features = np.asarray(features, dtype=np.float64)
    spread = features.std(axis=0)
    features = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    n_clusters = min(n_clusters, len(np.unique(features, axis=0)))
    return KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(features)


def slide_clusters(rows: pd.DataFrame, groups: pd.Series, n_clusters: int, seed: int) -> pd.Series:
    """Stain cluster of each group: k-means of the mean optical density and stain of its patches, indexed by group."""
    means = rows[SLIDE_STATISTICS].groupby(groups.to_numpy()).mean()
    return pd.Series(cluster(means.to_numpy(), n_clusters, seed), index=means.index)


def proxy_groups(rows: pd.DataFrame, n_clusters: int, seed: int) -> pd.Series:
    """A stain cluster for each patch, as text, which replaces the unknown slide.

    Patches with the same pixels (`pixel_hash`) are clustered as one, so exact copies are always in the same group.
    """
    distinct = rows.drop_duplicates("pixel_hash")
    numbers = cluster(distinct[PATCH_STATISTICS].to_numpy(), n_clusters, seed)
    of_hash = pd.Series([f"stain-{number:02d}" for number in numbers], index=distinct["pixel_hash"], dtype="str")
    return pd.Series(of_hash.loc[rows["pixel_hash"]].to_numpy(), index=rows.index, dtype="str")
