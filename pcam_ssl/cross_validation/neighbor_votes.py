"""kNN predictions of a fold: its training patches vote, alone or blended with the classifier."""

import numpy as np
import pandas as pd
from scipy.special import expit
from scipy.special import logit as inverse_sigmoid

from pcam_ssl.cross_validation.context import Fitted, RunContext, calibrate, in_order
from pcam_ssl.data.folds import Unit
from pcam_ssl.evaluation.calibration import Calibrator
from pcam_ssl.models.inference import embed_rows
from pcam_ssl.models.network import Network
from pcam_ssl.neighbors.index import EmbeddingIndex, build_index
from pcam_ssl.neighbors.knn import KS, TEMPERATURE, K, blend_weight, choose_k_and_temperature, gallery_votes, knn_logits
from pcam_ssl.neighbors.retrieval import query_scores
from pcam_ssl.tables import predictions, write_table
from pcam_ssl.terminal import say


def knn_tables(context: RunContext, unit: Unit, fitted: Fitted, patches: dict[str, pd.DataFrame]) -> dict:
    """Calibrated kNN Predictions of `patches`, by table name (`inner`, and `oof` and `test` where they exist).

    The gallery is the fold's training patches. Inner patches, which choose k and temperature, ask the galleries of networks that did
    not learn from them. Returns
    {"tables": by the same names, "facts": JSON values, "retrieval": measures of each scored patch, None where none is scored}.
    """
    network = fitted.network
    gallery = training_gallery(context, unit, network)
    vote, votes = _choose(context, unit, fitted)
    logits = {"inner": knn_logits(*(part[:, : vote["k"]] for part in votes), vote["temperature"])}
    embeddings = {}
    for name, table in patches.items():
        if name != "inner":
            embeddings[name] = embed_patches(context, network, patches_of(context, table.id))
            logits[name] = knn_logits(*gallery_votes(gallery, embeddings[name], vote["k"]), vote["temperature"])
    knn, calibrator = calibrated_tables(context, unit, patches, logits)
    retrieval = None
    if "oof" in patches:
        scored = patches["oof"]
        slides = scored.wsi if scored.wsi.notna().all() else None
        retrieval = query_scores(
            embeddings["oof"], scored.label.to_numpy(np.int64), slides, ids=scored.id, seed=context.recipe.seed
        )
    facts = {"vote": vote, "calibration": calibrator.to_dict(), "gallery": len(gallery)}
    return {"tables": knn, "facts": facts, "retrieval": retrieval}


def calibrated_tables(
    context: RunContext, unit: Unit, patches: dict[str, pd.DataFrame], logits: dict[str, np.ndarray]
) -> tuple[dict[str, pd.DataFrame], Calibrator]:
    """Predictions of `patches` from `logits` `[n]` by the same names, calibrated on those of `inner`; and their calibrator."""
    tables = {name: predictions(table.id, table.label, table.wsi, unit.number, logits[name]) for name, table in patches.items()}
    calibrator = calibrate(context, tables["inner"])
    return {name: table.assign(prob=calibrator.prob(table.logit)) for name, table in tables.items()}, calibrator


def score_neighbours(context: RunContext, unit: Unit, fitted: Fitted, head: dict[str, pd.DataFrame]) -> dict:
    """kNN and blended Predictions for each of the head's calibrated tables (`inner`, `oof`, `test`), returned as by `knn_tables`.

    The tables are named `oof-knn`, `oof-blend` and so on. Inner slides choose the blend weight too.
    """
    found = knn_tables(context, unit, fitted, head)
    knn, inner = found["tables"], head["inner"]
    blend = blend_weight(_calibrated(inner), _calibrated(knn["inner"]), inner.label.to_numpy(np.int64))
    if blend.reason and context.world.is_main:
        say(f"{unit.name}: blend of head and kNN: {blend.reason}")
    tables = {"inner-knn": knn["inner"]}
    for name in head.keys() - {"inner"}:
        tables[f"{name}-knn"] = knn[name]
        blended = blend.logits(_calibrated(head[name]), _calibrated(knn[name]))
        tables[f"{name}-blend"] = head[name].assign(logit=blended, prob=expit(blended))
    return {**found, "tables": tables, "facts": {**found["facts"], "blend": blend.to_dict()}}


def watched_logits(context: RunContext, unit: Unit, network: Network, patches: pd.DataFrame) -> np.ndarray:
    """kNN logits `[n]` of patches during training: k and temperature of the recipe, or their defaults where inner slides choose them later."""
    options, gallery = context.recipe.neighbours, training_gallery(context, unit, network)
    k = min(K, len(gallery)) if options.k == "inner" else options.k
    temperature = TEMPERATURE if options.temperature == "inner" else options.temperature
    return knn_logits(*gallery_votes(gallery, embed_patches(context, network, patches), k), temperature)


def vote_logits(context: RunContext, unit: Unit, network: Network, patches: pd.DataFrame, vote: dict) -> np.ndarray:
    """kNN logits `[n]` of other `patches`, with the `vote` (k and temperature) in the facts of `knn_tables`."""
    votes = gallery_votes(training_gallery(context, unit, network), embed_patches(context, network, patches), vote["k"])
    return knn_logits(*votes, vote["temperature"])


def vote_probs(context: RunContext, unit: Unit, network: Network, patches: pd.DataFrame, facts: dict) -> np.ndarray:
    """Calibrated kNN probs `[n]` of class 1 of other `patches`, by the facts of `knn_tables`."""
    return Calibrator.from_dict(facts["calibration"]).prob(vote_logits(context, unit, network, patches, facts["vote"]))


def save_retrieval(context: RunContext, unit: Unit, retrieval: pd.DataFrame | None) -> None:
    """Write the fold's retrieval measures, one row per query."""
    if context.world.is_main and retrieval is not None:
        write_table(context.run.unit(unit.name) / "retrieval.parquet", retrieval, context.run.table_notes(context.run.info()))


def training_gallery(context: RunContext, unit: Unit, network: Network) -> EmbeddingIndex:
    """Index of the unit's labelled training patches, embedded by its network: the patches that vote."""
    patches = context.rows[unit.train]
    table = patches[["id", "label", "wsi", "split", "view_hash"]].reset_index(drop=True)
    return build_index(embed_patches(context, network, patches), table)


def _choose(context: RunContext, unit: Unit, fitted: Fitted) -> tuple[dict, tuple[np.ndarray, np.ndarray]]:
    """k and temperature, from the recipe or chosen on inner slides; and the votes for the inner patches at the largest k."""
    options, patches = context.recipe.neighbours, context.rows[unit.inner]
    labels = patches.label.to_numpy(np.int64)
    galleries = [training_gallery(context, part, network) for part, network in fitted.inner]
    widest = min(max(KS), *map(len, galleries)) if options.k == "inner" else options.k
    asked = [
        gallery_votes(gallery, embed_patches(context, network, context.rows[part.inner]), widest)
        for gallery, (part, network) in zip(galleries, fitted.inner, strict=True)
    ]
    parts = [part for part, _ in fitted.inner]
    votes = tuple(in_order(parts, [vote[kind] for vote in asked]) for kind in (0, 1))
    grid = {} if options.k == "inner" else {"ks": (options.k,)}
    if options.temperature != "inner":
        grid["temperatures"] = (options.temperature,)
    vote = choose_k_and_temperature(*votes, labels, **grid)
    # Where nothing can be chosen, `vote` holds the defaults; values that the recipe fixes stay fixed.
    k = vote.k if options.k == "inner" else options.k
    temperature = vote.temperature if options.temperature == "inner" else options.temperature
    return {**vote.to_dict(), "k": k, "temperature": temperature}, votes


def embed_patches(context: RunContext, network: Network, patches: pd.DataFrame) -> np.ndarray:
    """Embeddings `[n, D]` of patches of the context's dataset."""
    return embed_rows(
        network,
        context.inputs,
        patches.row.to_numpy(),
        batch_size=context.recipe.predict.batch_size,
        precision=context.precision,
        world=context.world,
        workers=context.workers,
    )


def patches_of(context: RunContext, ids: pd.Series) -> pd.DataFrame:
    """Rows of the dataset's patches, in the order of `ids`."""
    return context.dataset.patches.set_index("id").loc[ids]


def _calibrated(table: pd.DataFrame) -> np.ndarray:
    """Logits of the calibrated probs."""
    return inverse_sigmoid(table.prob.clip(1e-15, 1 - 1e-15).to_numpy())
