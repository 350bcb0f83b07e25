"""`pcam-ssl explain RUN`: what the network that never saw a patch looks at; for chosen patches (--id) or a whole fold (--whole-fold K)."""

from collections.abc import Iterable
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.folds import score_groups
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.errors import UserError
from pcam_ssl.explain.centre import centre_means, even_share, without_centre, without_surround
from pcam_ssl.explain.explanation import LEARNED, Explained, NetworkView, Summary, summarise
from pcam_ssl.explain.gradcam import GradCam, centre_shares, explain_views, view_logits
from pcam_ssl.explain.report import write_explained
from pcam_ssl.files import check_folder
from pcam_ssl.models.artefact import Trained, load_trained
from pcam_ssl.neighbors.exclusion import leave_out
from pcam_ssl.neighbors.index import EmbeddingIndex
from pcam_ssl.neighbors.search import SearchResult, count_left_out, search
from pcam_ssl.runs.embedder import Embedder, run_embedder, unit_digest
from pcam_ssl.runs.networks import Networks, mean_calibrator, open_networks, own_calibrator
from pcam_ssl.runs.run import DECISIONS, ROUNDS
from pcam_ssl.search.gallery import EmbeddingSpace, open_gallery
from pcam_ssl.search.queries import Queries, by_id
from pcam_ssl.tables import DECISION_COLUMNS, read_table
from pcam_ssl.terminal import progress, warn


class Exposure:
    """The exposure of each fold of a run to the label of each patch."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self.rows = pd.Series(range(len(networks.folds.frame)), index=networks.folds.frame.id)

    def folds_of(self, id: str, fold: int | None = None) -> tuple[int, ...]:
        """The folds that explain a patch: the one that scored it, else all finished ones; or `fold` where it is given.

        Raises UserError where they are not finished.
        """
        networks = self.networks
        if fold is not None:
            networks.fold(fold)
            if self.learned(id, (fold,)) in ("label", "inner"):
                warn(f"--fold {fold}: that network saw the label of {id}, so the explanation may show memorisation")
            return (fold,)
        if not networks.finished:
            raise UserError(f"{networks.run.path}: no fold is finished yet; run its command again, it continues where it stopped")
        own = int(networks.folds.frame.fold.iloc[self.rows[id]]) if id in self.rows else -1
        if own < 0:
            return networks.finished
        if own not in networks.finished:
            raise UserError(
                f"--id {id}: fold {own}, the only one that never saw it, is not finished; run the command of {networks.run.path} again, or choose another network with --fold K"
            )
        return (own,)

    def learned(self, id: str, folds: tuple[int, ...]) -> str | None:
        """The strongest exposure of `folds` to a patch's label, a key of `LEARNED`; None where there is none."""
        kinds = {self._learned(id, k) for k in folds}
        return next((kind for kind in LEARNED if kind in kinds), None)

    def _learned(self, id: str, k: int) -> str | None:
        folds = self.networks.folds
        if id in self.rows:
            row = self.rows[id]
            if folds.train_mask(k)[row]:
                return "label"
            if folds.inner_mask(k)[row]:
                return "inner"
        if (id, k) in self._pseudo_labelled:
            return "pseudo-label"
        pooled = self.networks.info["command"] == ROUNDS and self.networks.recipe.pseudo.pooled
        return "pooled" if pooled and id in self.rows and folds.frame.visible.iloc[self.rows[id]] else None

    @cached_property
    def _pseudo_labelled(self) -> set[tuple[str, int]]:
        """(id, fold) of every pseudo-label that the run's folds learned from."""
        decisions = self.networks.run.path / DECISIONS
        if not decisions.exists():
            return set()
        table = read_table(decisions, DECISION_COLUMNS)[0]
        added = table[table.decision == "added"]
        return set(zip(added.id, added.fold, strict=True))


MOST = 200
BATCH = 16


def explain_patches(
    path: Path | str,
    ids: Iterable[str],
    *,
    fold: int | None = None,
    neighbours: int = 6,
    out: Path | str | None = None,
    data: Path | str | None = None,
    round: int | None = None,
    device: str = "auto",
) -> tuple[list[Explained], Path]:
    """Explain patches of a run's dataset; write explain.html and a PNG of each into `out` (RUN/explain), and return both.

    Raises UserError for more than `MOST` patches, for a folder that cannot be written, and as `open_networks` and `explained` do.
    """
    ids = list(dict.fromkeys(ids))
    if len(ids) > MOST:
        raise UserError(f"--id: a page shows at most {MOST} patches, these are {len(ids):,}; name fewer, or use --whole-fold K")
    if out is not None:
        check_folder("--out", out)
    networks = open_networks(path, data, round)
    networks.require_head("explain")
    folder = Path(out) if out is not None else networks.run.path / "explain"
    check_folder("--out", folder)
    patches = explained(networks, ids, fold=fold, neighbours=neighbours, device=device)
    return patches, write_explained(folder, patches, networks.run.path, networks.info)


def explained(
    networks: Networks, ids: Iterable[str], *, fold: int | None = None, neighbours: int = 6, device: str = "auto"
) -> list[Explained]:
    """Explanations of patches of the run's dataset, in the order of `ids`; nothing is written but the index of neighbours.

    A patch that a fold scored is explained by that fold's network, any other by the mean of all finished folds; `fold` names one
    network for all patches. The `neighbours` nearest labelled patches of other slides are found in the embedding of the (first)
    network; its gallery is embedded once and kept in RUN/fold-K/index. With 0 nothing is embedded.
    Raises UserError for unknown ids, unfinished folds, and backbones without a feature map.
    """
    networks.require_head("explain")
    ids = list(ids)
    if not ids:
        return []
    patches = networks.dataset.patches.assign(prob=networks.dataset.patches.id.map(networks.scored().prob))
    queries = by_id(ids, networks.dataset, patches)
    exposure = Exposure(networks)
    folds = [exposure.folds_of(id, fold) for id in ids]
    pixels = np.stack([queries.patch(n) for n in range(len(ids))])
    summaries = _summaries(networks, pixels, folds, device)
    neighbours_of = nearest_labelled(networks, queries, [each[0] for each in folds], patches, neighbours, device)
    return [
        Explained(
            row.id,
            None if pd.isna(row.label) else int(row.label),
            None if pd.isna(row.wsi) else row.wsi,
            row.split,
            None if pd.isna(row.prob) else float(row.prob),
            folds[n],
            exposure.learned(row.id, folds[n]),
            summaries[n],
            pixels[n],
            *neighbours_of[n],
        )
        for n, row in enumerate(queries.table.itertuples())
    ]


def _summaries(networks: Networks, pixels: np.ndarray, folds: list[tuple[int, ...]], device: str) -> list[Summary]:
    views: dict[tuple[int, int], NetworkView] = {}
    needed = {k: [n for n, each in enumerate(folds) if k in each] for k in sorted(set().union(*folds))}
    with progress("explaining", sum(map(len, needed.values()))) as advance:
        for k, rows in needed.items():
            trained = load_trained(networks.fold(k), device)
            cam = GradCam(trained.network)
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                batch = _view(trained, cam, pixels[part])
                views |= {(k, n): _row(batch, place) for place, n in enumerate(part)}
                advance(len(part))
    temperatures = {each: _temperature(networks, each) for each in set(folds)}
    size_px = networks.dataset.size_px
    return [summarise([views[k, n] for k in each], size_px, temperatures[each])[0] for n, each in enumerate(folds)]


def _temperature(networks: Networks, folds: tuple[int, ...]) -> float:
    """Temperature of one fold's logits, or of the mean logit of several folds."""
    if len(folds) > 1:
        return mean_calibrator(networks.run, folds).temperature
    return own_calibrator(networks.fold(folds[0])).temperature


def _view(trained: Trained, cam: GradCam, pixels: np.ndarray) -> NetworkView:
    """Logits and maps of one network, in float32 whatever the run was trained in: bfloat16 gradients have two digits."""
    device = trained.world.device
    views = explain_views(cam, torch.from_numpy(pixels).to(device))
    blurred = [
        view_logits(trained.network, torch.from_numpy(change(pixels)).to(device)) for change in (without_centre, without_surround)
    ]
    return NetworkView(views.logits, *blurred, views.maps)


def _row(view: NetworkView, place: int) -> NetworkView:
    return NetworkView(*(getattr(view, field.name)[place : place + 1] for field in fields(view)))


def explain_fold(
    path: Path | str, k: int, *, data: Path | str | None = None, round: int | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Mean centre share of the attribution over all patches that fold `k` scored, for right and wrong calls, as JSON values.

    One plain view of each patch, in float32, by the network that never saw their labels. Raises UserError where the fold is not
    finished, or where the run is a pooled round, whose networks saw these labels indirectly.
    """
    networks = open_networks(path, data, round)
    networks.require_head("explain")
    folder, dataset, recipe = networks.fold(k, "--whole-fold"), networks.dataset, networks.recipe
    if networks.info["command"] == ROUNDS and recipe.pseudo.pooled:
        raise UserError(
            f"{networks.run.path}: a round of pooled pseudo-labels, made by networks that saw the labels of fold {k} (leakage); name round 0 or a run without --pooled"
        )
    trained = load_trained(folder, device)
    scored = networks.folds.frame[networks.folds.score_mask(k)]
    rows = dataset.patches.set_index("id").loc[scored.id]
    with progress(f"fold-{k}", len(rows)) as advance:
        logits, shares = centre_shares(
            GradCam(trained.network),
            Pixels(dataset.path / PIXELS),
            rows.row.to_numpy(),
            size_px=dataset.size_px,
            batch_size=recipe.predict.batch_size,
            device=trained.world.device,
            workers=trained.world.loader_workers,
            advance=advance,
        )
    groups, unit = score_groups(networks.folds, scored)
    right = (logits >= 0) == (rows.label.to_numpy(np.int64) == 1)
    means = centre_means(shares, right, groups, unit, recipe.score.resamples, recipe.seed)
    return {"run": str(networks.run.path), "fold": k, "n": len(rows), "even_share": even_share(dataset.size_px), **means}


Neighbours = tuple[list[dict[str, Any]], list[np.ndarray]]


def nearest_labelled(
    networks: Networks, queries: Queries, folds: list[int], patches: pd.DataFrame, k: int, device: str = "auto"
) -> list[Neighbours]:
    """The `k` nearest neighbours of each query as JSON values, with their pixels, in the embedding of its fold in `folds`; none for `k` 0.

    The gallery is every patch whose label the run may use; its index is built once and kept in RUN/fold-K/index. `patches` are those of
    the dataset, with `prob`.
    """
    neighbours: list[Neighbours] = [([], []) for _ in folds]
    for fold in sorted(set(folds)) if k else ():
        chosen = [n for n, each in enumerate(folds) if each == fold]
        part = Queries(queries.table.iloc[chosen].reset_index(drop=True), queries.pixels, queries.rows[chosen])
        for n, found in zip(chosen, _of_fold(networks, part, fold, patches, k, device), strict=True):
            neighbours[n] = found
    return neighbours


def _index(space: EmbeddingSpace, embedder: Embedder) -> EmbeddingIndex:
    """The index kept beside the network; a damaged one, or one of another network, is rebuilt, since nothing else reads it."""
    try:
        return open_gallery(space, embedder)
    except UserError:
        return open_gallery(space, embedder, rebuild=True)


def _of_fold(networks: Networks, queries: Queries, fold: int, patches: pd.DataFrame, k: int, device: str) -> list[Neighbours]:
    dataset, folder = networks.dataset, networks.fold(fold)
    visible = networks.folds.frame.id[networks.folds.frame.visible]
    gallery = patches[patches.id.isin(visible)].reset_index(drop=True)
    embedder = run_embedder(networks.run, fold, device)
    space = EmbeddingSpace(folder, dataset, unit_digest(folder), gallery, None, lambda: embedder)
    index = _index(space, embedder)
    embeddings = embedder.embed(queries.pixels, queries.rows, "queries", workers=0)
    excluded = leave_out(index, queries.table)
    similarity, rows = search(index, embeddings, min(k, len(index)), excluded, queries.table.id)
    result = SearchResult({}, queries.table, index.table, similarity, rows, count_left_out(index, queries.table, excluded))
    places = pd.Index(dataset.patches.id)
    return [
        (query["neighbours"], [np.asarray(dataset.pixels[places.get_loc(each["id"])]) for each in query["neighbours"]])
        for query in result.each()
    ]
