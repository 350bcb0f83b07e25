"""`pcam-ssl compare`: runs side by side on the same patches, slides and folds, and what each cost."""

from math import prod
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pcam_ssl.compare.seeds import groups_over_seeds, seed_groups, seed_of
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.evaluation.bootstrap import intervals, intervals_and_differences
from pcam_ssl.evaluation.metrics import pearson, spearman
from pcam_ssl.evaluation.scores import interval_text, score_warnings
from pcam_ssl.runs.comparable import ScoredRun, groups_of, read_alike
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import calibrated_logits


def compare_runs(specs: list[str]) -> dict[str, Any]:
    """The whole comparison of two runs or more, as JSON values; differences are to the first.

    "groups" joins runs whose recipes differ only in the seed; None where no two do.

    A spec is a run folder, or one of its further tables as RUN:knn, RUN:blend, RUN:graph or RUN:spatial. Raises UserError where the runs cannot be compared.
    """
    if len(specs) < 2:
        raise UserError(f"compare: {len(specs)} run named; name two or more")
    runs = read_alike([str(spec) for spec in specs])
    first = runs[0]
    groups, unit = groups_of(first)
    options = {"resamples": first.facts.recipe.get("score.resamples", 2000), "seed": first.facts.recipe.get("seed", 0)}
    labels = first.facts.oof.label.to_numpy(np.int64)
    scored = intervals_and_differences(labels, [run.facts.oof.prob for run in runs], groups, **options)
    logits = np.stack([calibrated_logits(run.facts.oof.prob) for run in runs], axis=1)
    return {
        "dataset": first.facts.info["dataset"],
        "dataset_digest": first.facts.info["dataset_digest"],
        "scheme": first.facts.scores["scheme"],
        "grouping": first.facts.scores["grouping"],
        "n": len(labels),
        "n_positive": int(labels.sum()),
        "n_slides": int(first.facts.oof.wsi.nunique()) or None,
        "n_folds": int(first.facts.oof.fold.nunique()),
        "interval": interval_text(groups, len(labels), options["resamples"], unit),
        "first": first.name,
        "runs": [
            {**_run_values(run, options), "scores": scores, "against_first": None if run is first else differences}
            for run, (scores, differences) in zip(runs, scored, strict=True)
        ],
        "groups": groups_over_seeds(seed_groups(runs), labels, groups, options),
        "correlation": {"pearson": _plain(pearson(logits)), "spearman": _plain(spearman(logits))},
    }


def _run_values(run: ScoredRun, options: dict[str, int]) -> dict[str, Any]:
    facts = run.facts
    constant = facts.oof.prob.nunique() == 1
    return {
        "name": run.name,
        "run": str(run.path),
        "table": run.table or None,
        "seed": seed_of(run),
        "command": facts.info["command"],
        "network": _network(facts.info, facts.recipe),
        **costs(facts),
        "marks": [*score_warnings(facts.scores), *(["all patches have one prob: it ranks nothing"] if constant else [])],
        "selected_on_fold": facts.scores["selected_on_fold"],
        "transductive": bool(facts.scores.get("transductive")),
        "held_out": _held_out(run, options),
        "in_pool": {split: report["in_pool"] for split, report in (facts.scores["held_out"] or {}).items() if "in_pool" in report},
        "learning": learning(facts.events),
    }


def _network(info: dict[str, Any], recipe: dict[str, Any]) -> str:
    if "blend" in info:
        return f"{info['blend']['method']} of {sum(member['weight'] > 0 for member in info['blend']['members'])}"
    name = str(recipe.get("model.name", "unknown"))
    return name if recipe.get("method.classify", True) else f"{name}, kNN"


def _held_out(run: ScoredRun, options: dict[str, int]) -> dict[str, dict] | None:
    """AUROC on each held-out split, of the mean over folds."""
    if not run.table:
        return {split: report["scores"]["auroc"] for split, report in (run.facts.scores["held_out"] or {}).items()} or None
    test = run.test()
    if test is None or not test.label.notna().any():
        return None
    mean = test[(test.fold == -1) & test.label.notna()]
    groups = mean.wsi if mean.wsi.notna().all() else None
    return {"test": intervals(mean.label.to_numpy(np.int64), mean.prob, groups, **options)["auroc"]}


def learning(events: dict[int, list[dict[str, Any]]]) -> dict[str, Any] | None:
    """Mean over folds by epoch: `train_loss`, and the AUROC of the patches an epoch is watched by (one view); None without history."""
    if not events:
        return None
    lines = [line for fold in events.values() for line in fold]
    watched = "fold" if any("fold_auroc" in line for line in lines) else "inner"
    epochs = sorted({line["epoch"] for line in lines})
    means: dict[str, list[float | None]] = {"auroc": [], "train_loss": []}
    for epoch in epochs:
        for name, key in (("auroc", f"{watched}_auroc"), ("train_loss", "train_loss")):
            values = [line[key] for line in lines if line["epoch"] == epoch and line.get(key) is not None]
            means[name].append(float(np.mean(values)) if values else None)
    return {"watched": watched, "epochs": epochs, **means}


def write_page(path: Path | str, comparison: dict[str, Any]) -> None:
    """Write the comparison as one self-contained page. Raises UserError where the file cannot be written."""
    from pcam_ssl.compare.report import page
    from pcam_ssl.files import write_text

    try:
        write_text(path, page(comparison))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def _plain(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]


WEIGHTS = "model.safetensors"
LOSS = "metric_loss."
# Buffers: values of a network that are not trained by gradient.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
PIXELS = ("mean", "std")


def costs(facts: Facts) -> dict[str, Any]:
    """`parameters` of one fold's network (of all members for a blend), training `patches_per_s`, `epochs`, `kept`, `cost` (patch passes), `device`; None where unknown."""
    kept = sorted({fold["epoch"] for fold in facts.fold_facts.values() if "epoch" in fold})
    return {
        "parameters": parameters(facts.run),
        "patches_per_s": patches_per_s(facts),
        # L-BFGS fits on all patches at once.
        "epochs": None if facts.recipe.get("optim.name") == "lbfgs" else facts.recipe.get("train.epochs"),
        "kept": [kept[0], kept[-1]] if kept and facts.recipe.get("optim.name") != "lbfgs" else None,
        "cost": facts.info.get("cost"),
        "device": facts.info.get("device"),
    }


def parameters(run: Run) -> int | None:
    """Trained parameters of a fold's network; for a blend the sum over the runs it needs, None where one of them is gone."""
    if run.paths.provenance.exists() and (blend := run.info().get("blend")):
        needed = {member["run"] for member in blend["members"] if member["weight"] > 0}
        counted = [parameters(Run(Path(path))) for path in sorted(needed)]
        return None if None in counted else sum(counted)
    found = sorted(run.path.glob(f"fold-*/{WEIGHTS}"))
    return count_parameters(found[0]) if found else None


def count_parameters(path: Path) -> int:
    """Parameters in a safetensors file, from its header alone; buffers and the parameters of a metric loss are left out."""
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = tensors.keys()
            learned = [name for name in names if name not in PIXELS and not name.startswith(LOSS) and not name.endswith(BUFFERS)]
            return sum(prod(tensors.get_slice(name).get_shape()) for name in learned)
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: damaged ({first_line(error)}); delete {path.parent}, and the run's command trains it again"
        ) from None


def patches_per_s(facts: Facts) -> float | None:
    """Training patches per second: the median over all epochs of all folds, inner evaluation included."""
    batch = facts.recipe.get("train.batch_size")
    rates = []
    for events in facts.events.values():
        steps = 0
        for event in events:
            if event.get("seconds") and batch:
                rates.append((event["step"] - steps) * batch / event["seconds"])
            steps = event["step"]
    return median(rates) if rates else None
