"""What a run cost: parameters, patches a second, epochs. No torch."""

from math import prod
from pathlib import Path
from statistics import median
from typing import Any

from safetensors import SafetensorError, safe_open

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import Run

WEIGHTS = "model.safetensors"
LOSS = "metric_loss."
# Buffers: what a network keeps without learning it by gradient.
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
PIXELS = ("mean", "std")


def costs(facts: Facts) -> dict[str, Any]:
    """`parameters` of one fold's network (of all members for a blend), training `patches_per_s`, `epochs`, `kept`, `device`; None where unknown."""
    kept = sorted({fold["epoch"] for fold in facts.fold_facts.values() if "epoch" in fold})
    return {
        "parameters": parameters(facts.run),
        "patches_per_s": patches_per_s(facts),
        "epochs": facts.recipe.get("train.epochs"),
        "kept": [kept[0], kept[-1]] if kept else None,
        "device": facts.info.get("device"),
    }


def parameters(run: Run) -> int | None:
    """Numbers that a fold's network learns; for a blend the sum over the runs it needs, None where one of them is gone."""
    if run.provenance.exists() and (blend := run.info().get("blend")):
        needed = {member["run"] for member in blend["members"] if member["weight"] > 0}
        counted = [parameters(Run(Path(path))) for path in sorted(needed)]
        return None if None in counted else sum(counted)
    found = sorted(run.path.glob(f"fold-*/{WEIGHTS}"))
    return count_parameters(found[0]) if found else None


def count_parameters(path: Path) -> int:
    """Parameters in a safetensors file, from its header alone; buffers and what a metric loss learned are left out."""
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
    """Training patches a second: the median over all epochs of all folds, inner evaluation included."""
    batch = facts.recipe.get("train.batch_size")
    rates = []
    for events in facts.events.values():
        steps = 0
        for event in events:
            if event.get("seconds") and batch:
                rates.append((event["step"] - steps) * batch / event["seconds"])
            steps = event["step"]
    return median(rates) if rates else None
