"""By which rule should a fold choose between round 0 and a later round, where its inner patches are few? Prints a markdown table.

python scripts/round_choice.py runs/idc-0 runs/idc-1 runs/idc-2
python scripts/round_choice.py runs/arms/1000-labels/seed-*/rounds-growing-share --inner 30 --draws 10

RUN is a folder with `rounds.json`. Every later round of every fold that got pseudo-labels is set against round 0: a rule sees the
fold's inner predictions, and what it chose is counted on the fold's out-of-fold predictions. With --inner, each fold is asked
`--draws` times, each time with about that many inner patches of randomly drawn slides (stain clusters where slides are unknown) and the
temperature that they give: this makes few inner patches of the many that cross-fitted heads have. The standard error of the rule
`one standard error` is that of the paired difference in AUROC over resampled slides.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from pcam_ssl.evaluation.bootstrap import resampled_auroc
from pcam_ssl.evaluation.calibration import fit_calibrator
from pcam_ssl.evaluation.metrics import ROUNDING, auroc, nll
from pcam_ssl.files import read_json
from pcam_ssl.tables import read_table

ALWAYS = "the later round, always"


@dataclass(frozen=True)
class Choice:
    """A fold's inner predictions of round 0 and a later round, and the later round's gain out of fold."""

    labels: np.ndarray  # [N]
    slides: np.ndarray  # [N]
    logits: tuple[np.ndarray, np.ndarray]  # [N] each
    probs: tuple[np.ndarray, np.ndarray]  # [N] each, calibrated
    auroc_gain: float
    nll_change: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--inner", type=int, help="about this many inner patches, drawn by slides")
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    choices = [choice for run in options.runs for choice in choices_of(run)]
    if options.inner:
        rng = np.random.default_rng(0)
        drawn = (fewer(choice, options.inner, rng) for choice in choices for _ in range(options.draws))
        choices = [choice for choice in drawn if choice is not None]
    print(table(choices))


def choices_of(run: Path) -> Iterator[Choice]:
    """A Choice for each later round of each fold, where its inner and its scored patches hold both classes."""
    folders = [located(run, row["folder"]) for row in read_json(run / "rounds.json")["rounds"]]
    slides = read_table(folders[0] / "folds.parquet")[0].set_index("id").group
    first = read_table(folders[0] / "oof.parquet")[0]
    for folder in folders[1:]:
        later = read_table(folder / "oof.parquet")[0].set_index("id")
        decisions = read_table(folder / "pseudo.parquet")[0]
        for fold in sorted(decisions[decisions.decision == "added"].fold.unique()):
            inner = read_table(folders[0] / f"fold-{fold}" / "inner.parquet")[0].set_index("id")
            inner_later = read_table(folder / f"fold-{fold}" / "inner.parquet")[0].set_index("id").loc[inner.index]
            scored = first[(first.fold == fold) & first.label.notna()]
            labels, truth = inner.label.to_numpy(np.int64), scored.label.to_numpy(np.int64)
            if min(labels.std(), truth.std()) == 0:
                continue
            probs = scored.prob, later.loc[scored.id].prob
            yield Choice(
                labels,
                slides.loc[inner.index].astype(str).to_numpy(),
                (inner.logit.to_numpy(), inner_later.logit.to_numpy()),
                (inner.prob.to_numpy(), inner_later.prob.to_numpy()),
                auroc(truth, probs[1]) - auroc(truth, probs[0]),
                nll(truth, probs[1]) - nll(truth, probs[0]),
            )


def located(run: Path, folder: str) -> Path:
    """The folder of a round: as it was written, or beside the run."""
    path = Path(folder)
    return path if path.is_absolute() or path.exists() else run.resolve().parent / path


def fewer(choice: Choice, n: int, rng: np.random.Generator) -> Choice | None:
    """The same with inner patches of so many slides that there are `n`, and their temperature; None where they hold one class."""
    order = rng.permutation(np.unique(choice.slides))
    sizes = np.cumsum([np.sum(choice.slides == slide) for slide in order])
    rows = np.flatnonzero(np.isin(choice.slides, order[: np.searchsorted(sizes, n) + 1]))
    # A stain cluster alone can hold many more.
    rows = rng.choice(rows, n, replace=False) if len(rows) > 1.5 * n else rows
    labels, slides = choice.labels[rows], choice.slides[rows]
    if labels.std() == 0:
        return None
    logits = tuple(each[rows] for each in choice.logits)
    probs = tuple(fit_calibrator(each, labels, slides).prob(each) for each in logits)
    return Choice(labels, slides, logits, probs, choice.auroc_gain, choice.nll_change)


def chosen(choice: Choice) -> dict[str, bool]:
    """By rule, whether the later round is chosen."""
    labels, (first, later) = choice.labels, choice.probs
    gain = auroc(labels, later) - auroc(labels, first)
    equal, sharper = abs(gain) <= ROUNDING, nll(labels, later) < nll(labels, first)
    drawn = resampled_auroc(labels, [first, later], choice.slides, resamples=200)
    error = np.nanstd(drawn[1] - drawn[0]) if drawn.shape[1] else np.inf
    return {
        "AUROC, of equals round 0": gain > ROUNDING,
        "AUROC, of equals the lower NLL": gain > ROUNDING or (equal and sharper),
        "AUROC, of equals the later round": gain > ROUNDING or equal,
        "NLL": sharper,
        "round 0 only if better by one standard error": gain > -error,
        ALWAYS: True,
    }


def table(choices: list[Choice]) -> str:
    """A row for each rule: how often it takes the later round, how often that is right in AUROC, and what the choice gains on average."""
    gains, changes = (np.array([getattr(choice, name) for choice in choices]) for name in ("auroc_gain", "nll_change"))
    taken = [chosen(choice) for choice in choices]
    inner = np.median([len(choice.labels) for choice in choices])
    lines = [
        f"| {len(choices):,} choices, {inner:.0f} inner patches (median) | later round taken | right | AUROC | NLL |",
        "|---|---|---|---|---|",
    ]
    for rule in taken[0]:
        later = np.array([each[rule] for each in taken])
        right = np.mean(later == (gains > 0))
        scores = f"{np.mean(later * gains):+.4f} | {np.mean(later * changes):+.4f}"
        lines.append(f"| {rule} | {later.mean():.0%} | {right:.0%} | {scores} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
