"""`pcam-ssl data audit`: findings on a dataset and, with --run, on its folds; labels that out-of-fold predictions contradict."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.audit.findings import Audit, Finding
from pcam_ssl.audit.slides import audit_dataset, balance, fold_findings
from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.duplicates import NEAR_BITS
from pcam_ssl.data.folds import REFIT, read_folds
from pcam_ssl.errors import LeakError, UserError
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_predictions, read_table


def suspicious_labels(oof: pd.DataFrame, knn: pd.DataFrame | None = None) -> pd.DataFrame:
    """Labels that all out-of-fold Predictions contradict, one row per label, the most suspicious first.

    The doubt is the calibrated prob of the class that is not the label, that is 1 minus the self-confidence by which Northcutt et al.
    2021 (arXiv:1911.00068) rank. A label is suspicious where the doubt of network and kNN is above 1/2 each; rows are ranked by the
    product of both, so both must be confident. The networks never saw the patch's slide, so none can have memorised a wrong label.
    `oof` and `knn` are Predictions; without `knn` the network decides alone.
    Columns: `id`, `label`, `wsi`, `fold`, `loss` (of the network, nats), `doubt_network`, `doubt_knn` (NA without), `doubt`.
    """
    oof = oof[oof["label"].notna()]
    labels = oof[["id", "label", "wsi", "fold"]].assign(doubt_network=_prob_of_error(oof))
    # Clipped, since a prob of exactly 0 for the label would make the loss infinite.
    labels["loss"] = -np.log1p(-labels["doubt_network"].clip(upper=1 - 1e-15))
    if knn is None:
        labels["doubt_knn"], labels["doubt"] = np.nan, labels["doubt_network"]
        contradicted = labels["doubt_network"] > 0.5
    else:
        labels["doubt_knn"] = pd.Series(_prob_of_error(knn).to_numpy(), index=knn["id"]).reindex(labels["id"]).to_numpy()
        labels["doubt"] = labels["doubt_network"] * labels["doubt_knn"]
        contradicted = (labels["doubt_network"] > 0.5) & (labels["doubt_knn"] > 0.5)
    columns = ["id", "label", "wsi", "fold", "loss", "doubt_network", "doubt_knn", "doubt"]
    return labels[contradicted].sort_values(["doubt", "id"], ascending=[False, True])[columns].reset_index(drop=True)


def _prob_of_error(predictions: pd.DataFrame) -> pd.Series:
    """Prob of the class that is not the label."""
    return predictions["prob"].where(predictions["label"] == 0, 1 - predictions["prob"])


NAMED = 3


def audit(data: Path | str, run_path: Path | str | None = None, near_bits: int = NEAR_BITS, device: str = "auto") -> Audit:
    """The audit of a dataset, and of a run on it where `run_path` is given. Leaks are findings, not errors.

    Raises UserError where there is no dataset or no run, or where the run is on another dataset.
    """
    dataset = open_dataset(data)
    patches = dataset.patches
    by_split = balance(patches, "split")
    if run_path is None:
        return Audit(dataset, audit_dataset(dataset, near_bits), by_split)
    run = Run(Path(run_path))
    frame = _folds(run, dataset)
    rows = patches.set_index("id")["row"].loc[frame["id"]]
    fold_of_row = pd.Series(frame["fold"].to_numpy(), index=rows.to_numpy())
    findings = [*fold_findings(frame, str(run.paths.folds)), *audit_dataset(dataset, near_bits, fold_of_row)]
    findings += _embedding_findings(run, dataset, near_bits, device)
    suspicious = _suspicious_labels(run)
    if suspicious is not None:
        findings.append(_label_finding(suspicious, dataset, (run.path / "oof-knn.parquet").exists()))
    by_fold = balance(patches.loc[fold_of_row.index], fold_of_row)
    return Audit(dataset, findings, by_split, str(run.path), by_fold, suspicious)


def _folds(run: Run, dataset: Dataset) -> pd.DataFrame:
    """The frame of the run's folds, with leaks or without. Raises UserError where the run is on another dataset."""
    info = run.info()
    if info["dataset_digest"] != dataset.digest:
        raise UserError(
            f"{run.path}: a run on {info['dataset']} ({info['dataset_digest'][:12]}), this is {dataset.path} ({dataset.digest[:12]}); audit that dataset"
        )
    try:
        return read_folds(run.paths.folds, dataset.patches).frame
    except LeakError:
        # `fold_findings` counts and names the leaks.
        return read_table(run.paths.folds)[0]


def _suspicious_labels(run: Run) -> pd.DataFrame | None:
    if not (run.path / "oof.parquet").exists():
        return None
    tables = [run.path / f"{name}.parquet" for name in ("oof", "oof-knn")]
    return suspicious_labels(*(read_predictions(path) for path in tables if path.exists()))


def _label_finding(suspicious: pd.DataFrame, dataset: Dataset, both: bool) -> Finding:
    who = (
        "the out-of-fold network and its nearest neighbours" if both else "the out-of-fold network (the run has no kNN predictions)"
    )
    if suspicious.empty:
        return Finding("ok", "suspicious labels", f"no label is doubted by {who}")
    examples = tuple(f"{row.id} (label {row.label}, doubt {row.doubt:.2f})" for row in suspicious.head(NAMED).itertuples())
    rows = dataset.patches.set_index("id")["row"].loc[suspicious["id"]]
    what = f"{len(suspicious):,} labels are doubted by {who}"
    move = "look at the first ones (--html): most are hard patches, some are wrong labels"
    return Finding("suspect", "suspicious labels", what, len(suspicious), examples, move, tuple((int(row),) for row in rows))


def _embedding_findings(run: Run, dataset: Dataset, near_bits: int, device: str) -> list[Finding]:
    if not run.unit_done(REFIT):
        what = f"{run.path} has no final network, so embeddings were not compared"
        return [Finding("note", "look-alikes", what, 0, (), "give a run of `pcam-ssl metric-train`, or one with cv.refit=true")]
    from pcam_ssl.audit.look_alikes import look_alike_findings

    return look_alike_findings(run, dataset, near_bits, device)
