"""By which rule should a verdict put a later round in use? Prints a markdown table.

python scripts/round_in_use.py runs/kaggle-0 runs/idc-0
python scripts/round_in_use.py runs/arms/1000-labels/seed-*/rounds-growing-share

RUN is a folder with `rounds.json`. Its slides (stain clusters where slides are unknown) are halved at random, `--draws` times. A rule sees
the out-of-fold predictions of one half: those of the rounds that folds chose on their inner slides, against round 0 and the control, with
intervals. Where it takes the later round (the best on inner slides), its change of scores is counted on the other half, of which
the rule saw nothing. Every rule but "always" refuses a round that loses measurably against round 0. Half of the slides make wider
intervals than a verdict has, so rules are more careful here than there. Runs count alike, whatever their number of draws that hold both
classes.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

# Measured is the checkout that this script lies in, not what may be installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import pandas as pd

from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.metrics import auroc, nll
from pcam_ssl.files import read_json
from pcam_ssl.pseudo_labels.verdict import round_in_use
from pcam_ssl.tables import read_table

RESAMPLES = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--draws", type=int, default=50)
    options = parser.parse_args()
    found = [(run, list(halves(run, options.draws))) for run in options.runs]
    if not any(draws for _, draws in found):
        sys.exit("no run has a later round that is best on inner slides")
    print(table([draws for _, draws in found if draws]))
    for run, draws in found:
        if not draws:
            print(f"{run}: left out, no control, or no later round is best on inner slides", file=sys.stderr)


def halves(run: Path, draws: int) -> Iterator[tuple[dict[str, bool], float, float]]:
    """For each halving: what the rules decide on one half, and the change of AUROC and NLL by the later round on the other."""
    verdict = read_json(run / "rounds.json")
    if not verdict["best_inner"] or verdict["control"] is None:
        return
    folders = {row["number"]: located(run, row["folder"]) for row in verdict["rounds"]}
    first = read_table(folders[0] / "oof.parquet")[0].set_index("id")
    slides = read_table(folders[0] / "folds.parquet")[0].set_index("id").group.loc[first.index].astype(str).to_numpy()
    labels = first.label.to_numpy(np.int64)
    probs = {number: probs_of(folder, first.index) for number, folder in folders.items()}
    control = probs[0] if verdict["control"]["is_round_0"] else probs_of(located(run, verdict["control"]["folder"]), first.index)
    chosen = np.choose([verdict["chosen_by_fold"]["rounds"][str(fold)] for fold in first.fold], list(probs.values()))
    later, names = probs[verdict["best_inner"]], np.unique(slides)
    rng = np.random.default_rng(0)
    for _ in range(draws):
        seen = np.isin(slides, rng.permutation(names)[: len(names) // 2])
        if min(labels[seen].std(), labels[~seen].std()) == 0:
            continue
        options = {"groups": slides[seen], "resamples": RESAMPLES}
        above = [paired_differences(labels[seen], each[seen], chosen[seen], **options) for each in (probs[0], control)]
        gain, change = (score(labels[~seen], later[~seen]) - score(labels[~seen], probs[0][~seen]) for score in (auroc, nll))
        yield decided(*above), gain, change


def probs_of(folder: Path, ids: pd.Index) -> np.ndarray:
    return read_table(folder / "oof.parquet")[0].set_index("id").prob.loc[ids].to_numpy()


def located(run: Path, folder: str) -> Path:
    """A folder of the verdict: as it was written, or beside the run."""
    path = Path(folder)
    return path if path.is_absolute() or path.exists() else run.resolve().parent / path


def decided(first: dict, control: dict) -> dict[str, bool]:
    """By rule, whether the later round is used, from the chosen rounds' paired differences to round 0 and to the control."""
    ranked = [shown(each["auroc"], 1) for each in (first, control)]
    sure = [shown(each["nll"], -1) for each in (first, control)]
    no_loss = ranked[0] >= 0 and sure[0] >= 0
    no_lower = no_loss and ranked[1] >= 0 and first["auroc"]["value"] >= 0
    return {
        "AUROC gains over both": min(ranked) > 0 and no_loss,
        "AUROC gains over the control": ranked[1] > 0 and no_loss,
        "AUROC or NLL gains over both (the rule)": round_in_use(1, {"against_round_0": first, "against_control": control}, {})[0]
        == 1,
        "AUROC or NLL gains over the control": max(ranked[1], sure[1]) > 0 and no_lower,
        "no loss against round 0": no_loss,
        "always": True,
    }


def shown(difference: dict, better: int) -> int:
    """1 for a measurable gain, -1 for a loss, else 0; `better` is the sign of a gain."""
    low, high = difference["low"], difference["high"]
    if low is None or low <= 0 <= high:
        return 0
    return better if low > 0 else -better


def table(runs: list[list[tuple[dict[str, bool], float, float]]]) -> str:
    """A row for each rule: how often it takes the later round, and what that brings on average on the slides it did not see."""
    lines = [f"| {len(runs)} runs | later round used | AUROC | NLL |", "|---|---|---|---|"]
    for rule in runs[0][0][0]:
        taken, gains, changes = np.mean(
            [
                np.mean([(rules[rule], rules[rule] * gain, rules[rule] * change) for rules, gain, change in draws], axis=0)
                for draws in runs
            ],
            axis=0,
        )
        lines.append(f"| {rule} | {taken:.0%} | {gains:+.4f} | {changes:+.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
