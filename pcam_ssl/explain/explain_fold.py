"""`pcam-ssl explain RUN --whole-fold K`: does the network look where the label is made, and more so when it is right?"""

from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.dataset import PIXELS
from pcam_ssl.data.folds import score_groups
from pcam_ssl.errors import UserError
from pcam_ssl.explain.attribution_rows import centre_shares
from pcam_ssl.explain.centre import even_share
from pcam_ssl.explain.centre_means import centre_means
from pcam_ssl.explain.gradcam import GradCam
from pcam_ssl.models.trained import load_trained
from pcam_ssl.runs.networks import open_networks
from pcam_ssl.runs.run import ROUNDS
from pcam_ssl.terminal import progress


def explain_fold(
    path: Path | str, k: int, *, data: Path | str | None = None, round: int | None = None, device: str = "auto"
) -> dict[str, Any]:
    """Mean share of the attribution in the centre over all patches that fold `k` scored, right calls against wrong, in JSON values.

    One plain view of each patch, in float32, by the network that never saw their labels. Raises UserError where the fold is not
    there, or of a round of pooled pseudo-labels, whose right calls flatter.
    """
    networks = open_networks(path, data, round)
    networks.require_head("explain")
    folder, dataset, recipe = networks.fold(k, "--whole-fold"), networks.dataset, networks.recipe
    if networks.info["command"] == ROUNDS and recipe.pseudo.pooled:
        raise UserError(
            f"{networks.run.path}: a round of pooled pseudo-labels, made by networks that saw the labels of fold {k}, so its right calls flatter; name round 0 or a run without --pooled"
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
