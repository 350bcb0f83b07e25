"""What verbs return beside runs, datasets and scores, and how all of it shows in a notebook: small documents of `render`."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.scores import Scores
from pcam_ssl.files import StrPath
from pcam_ssl.render.document import Block, Facts, Paragraph, Preformatted, Table, Verdict
from pcam_ssl.render.format import interval, out_of_fold_words, passes, score_document, sentence
from pcam_ssl.render.html import fragment
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_predictions
from pcam_ssl.terminal import is_one_of_several

if TYPE_CHECKING:
    from pcam_ssl.data.dataset import Dataset
    from pcam_ssl.explain.explanation import Explained


class Predictions:
    """Predictions of `n` new patches: `table`, a row a patch and fold and the mean as fold -1; `scores` where labels are known, else None."""

    def __init__(self, n: int, scores: dict[str, Any] | None, source: str, table: pd.DataFrame | Path):
        self.n = n
        self.scores = None if scores is None else Scores(scores, f"{source}, mean of folds")
        self.source = source
        self.path = table if isinstance(table, Path) else None
        """The file that holds the table, None where it was not written."""
        self._table = table

    @property
    def table(self) -> pd.DataFrame:
        """All rows. Millions of patches are read from the file only where they are asked for."""
        if isinstance(self._table, Path):
            self._table = read_predictions(self._table)
        return self._table

    @property
    def mean(self) -> pd.DataFrame:
        """A row a patch, in the order of the source: the mean over folds."""
        return self.table[self.table.fold == -1].reset_index(drop=True)

    @property
    def prob(self) -> np.ndarray:
        """Calibrated probs of class 1, float64 [N], in the order of the source."""
        return self.mean.prob.to_numpy()

    def __len__(self) -> int:
        return self.n

    def __repr__(self) -> str:
        where = "" if self.path is None else f", in {self.path}"
        text = f"Predictions of {len(self):,} patches of {self.source}{where}"
        return text if self.scores is None else f"{text}\n\n{self.scores!r}"

    def _repr_html_(self) -> str:
        head = self.mean.head(10)
        rows = [(row.id, f"{row.prob:.3f}", f"{row.view_std:.2f}") for row in head.itertuples()]
        table = Table(("id", "prob", "spread over views"), rows, f"{len(self):,} patches of {self.source}, the first {len(head)}")
        scores = [] if self.scores is None else score_document(self.scores.report, self.scores.title)
        return fragment([*scores, table])


def predicted(run: StrPath, source: Any, *, out: StrPath | None, **options: Any) -> Predictions:
    """Predictions of a source, of an array of patches, or of image files; written to `out` where that is given.

    Raises UserError without `out` in one of several processes, which share one file.
    """
    if out is None and is_one_of_several():
        raise UserError(
            "predict: several processes write one table; name it, out='FILE.parquet', in a folder that all of them reach"
        )
    from pcam_ssl.blending.predict import predict_source
    from pcam_ssl.data.importing import packed

    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as scratch, packed(source, Path(scratch)) as (path, name):
        file = Path(scratch) / "predictions.parquet" if out is None else Path(out)
        n, report = predict_source(Path(run), path, file, **options)
        return Predictions(n, report, name, read_predictions(file) if out is None else file)


class Comparison(dict):
    """What `compare` says, as JSON values by key; shows itself as tables."""

    def __repr__(self) -> str:
        from pcam_ssl.compare.report import compare_text

        return compare_text(self)

    @property
    def table(self) -> pd.DataFrame:
        """A row a run: AUROC with its interval, and the difference to the first run with its own."""
        rows = []
        for run in self["runs"]:
            row = {"run": run["name"], **_columns("auroc", run["scores"]["auroc"])}
            rows.append(row | (_columns("difference", run["against_first"]["auroc"]) if run["against_first"] else {}))
        return pd.DataFrame(rows)

    def _repr_html_(self) -> str:
        rows = [
            (
                run["name"],
                interval(run["scores"]["auroc"]),
                interval(run["against_first"]["auroc"], "+.3f") if run["against_first"] else "first",
                interval(run["scores"]["nll"]),
                "; ".join(run["marks"]),
            )
            for run in self["runs"]
        ]
        head = ("run", "AUROC, 95 % interval", f"difference to {self['first']}, paired", "NLL", "marks")
        told = f"{self['n']:,} patches, {self['n_folds']} folds. Interval: {self['interval']}."
        return fragment([Table(head, rows, align="lrrrl"), Paragraph(told, "note")])


class LabelCurve(dict):
    """What `label_curve` says, as JSON values by key (label-curve.json); shows itself as tables."""

    @property
    def table(self) -> pd.DataFrame:
        """A row a budget: `by`, budget, labels and slides that a network saw, AUROC with its interval, and its spread over draws.

        With `--method rounds` also `rounds` (AUROC with rounds), `rounds_gain` over the labels alone and `rounds_above_control`.
        """
        rows = [
            {
                "by": by,
                "budget": point["name"],
                "labels": point["labels"],
                "slides": point["slides"],
                **_columns("auroc", point["auroc"]),
                "auroc_sd": point["draws"]["sd"],
                **_with_rounds(point.get("rounds")),
            }
            for by, curve in self["curves"].items()
            for point in curve["points"]
        ]
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        from pcam_ssl.label_curve.report import curve_text

        return curve_text(self)

    def _repr_html_(self) -> str:
        from pcam_ssl.label_curve.report import curve_document

        return fragment(curve_document(self).body)


class RoundsVerdict(dict):
    """The verdict on pseudo-label rounds, as JSON values by key (rounds.json); `verdict` in a sentence, `best` as a Run."""

    @property
    def verdict(self) -> str:
        """Whether the rounds helped, in a sentence."""
        return self["verdict"]

    @property
    def runs(self) -> list[Run]:
        """The run of each round; round 0 is the run that they started from."""
        return [Run(Path(row["folder"])) for row in self["rounds"]]

    @property
    def best(self) -> Run:
        """The run of the round in use: the best on inner slides where rounds gained over round 0 and the control, else round 0 (of pooled rounds the last)."""
        return self.runs[self["best"]]

    @property
    def control(self) -> Run | None:
        """The run that learned from the labels alone for as long as the last round's students; None where none was trained."""
        told = self.get("control")
        return Run(Path(told["folder"])) if told and told["folder"] else None

    def __repr__(self) -> str:
        from pcam_ssl.pseudo_labels.report import rounds_text

        return rounds_text(self)

    def _repr_html_(self) -> str:
        rows = [
            (
                f"{row['number']}{' (in use)' if row['number'] == self['best'] else ''}",
                _three(row["inner"]["auroc"]),
                interval(row["out_of_fold"]["auroc"]) if row["out_of_fold"] else "withheld",
                passes(row.get("cost")),
            )
            for row in self["rounds"]
        ]
        if (told := self.get("control")) and not told["is_round_0"]:
            rows.append(("control", "", interval(told["out_of_fold"]["auroc"]), passes(told["cost"])))
        stopped = Paragraph(f"Stopped: {self['stopped']}.", "note") if self["stopped"] else None
        return fragment(
            [
                Paragraph(self["verdict"], "headline"),
                Table(("round", "AUROC, inner slides", "AUROC, out of fold", "patch passes"), rows),
                stopped,
            ]
        )


@dataclass(frozen=True, repr=False)
class Embeddings:
    """A folder of embeddings; stands for it wherever a path is taken, as in `search`."""

    path: Path
    facts: dict[str, Any]
    """What embedding.json says."""
    knn_scores: dict[str, Any] | None = None
    """By split, the score report of the nearest neighbours of other slides; None where it was not asked for."""

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def vectors(self) -> np.ndarray:
        """[N, D], memory-mapped, in the order of `ids`; float32, or float16 with `half`."""
        return np.load(self.path / "embeddings.npy", mmap_mode="r")

    @property
    def ids(self) -> pd.DataFrame:
        """id, label, wsi, split, view_hash of each vector."""
        return pd.read_parquet(self.path / "ids.parquet")

    @property
    def knn(self) -> dict[str, Scores]:
        """The kNN scores by split."""
        reports = self.knn_scores or {}
        return {split: Scores(report, f"{split}, nearest neighbours of other slides") for split, report in reports.items()}

    def __repr__(self) -> str:
        return f"{self.path}: {self.facts['n']:,} embeddings of {self.facts['dimension']} values, {self.facts['dtype']}"


@dataclass(frozen=True, repr=False)
class Explanations:
    """Explained patches, and the page that shows their pictures."""

    patches: "list[Explained]"
    page: Path

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, place: int) -> "Explained":
        return self.patches[place]

    def __repr__(self) -> str:
        from pcam_ssl.explain.report import explained_text

        return "\n\n".join([*(explained_text(each) for each in self.patches), f"page {self.page}"])

    def _repr_html_(self) -> str:
        return fragment([Preformatted(repr(self))])


def run_html(run: Run) -> str:
    """A run in a notebook: can its score be trusted, its scores, and its files."""
    return fragment(run_document(run))


def run_document(run: Run) -> list[Block]:
    """The blocks of `run_html`; of a run that is not finished, or has no out-of-fold scores, what there is to say."""
    from pcam_ssl.report.summary import files_of
    from pcam_ssl.report.verdict import judge
    from pcam_ssl.runs.contents import read_facts

    files = Facts([(label, str(run.path / name)) for label, name in files_of(run)])
    try:
        facts = read_facts(run)
    except UserError as error:
        return [Paragraph(error.problems[0], "absent"), *([files] if files.pairs else [])]
    found = judge(facts)
    verdict = Verdict(found.level, found.badge, found.headline, found.remarks)
    return [
        Paragraph(str(run.path), "note"),
        verdict,
        *score_document(facts.scores["out_of_fold"], sentence(out_of_fold_words(facts.scores))),
        files,
    ]


def dataset_html(dataset: "Dataset") -> str:
    """A dataset in a notebook: its patches by split and label, and its largest slides."""
    from pcam_ssl.data.show import SLIDES_LISTED, summarise

    summary = summarise(dataset)
    counts = [(split, *(f"{n[label]:,}" for label in ("tumor", "normal", "unlabelled"))) for split, n in summary["counts"].items()]
    slides = [
        (slide["wsi"], slide["split"], f"{slide['patches']:,}", _three(slide["tumor_share"]))
        for slide in summary["slides"][:SLIDES_LISTED]
    ]
    caption = f"{summary['n_slides']:,} slides, the largest {len(slides)}"
    return fragment(
        [
            Paragraph(repr(dataset), "headline"),
            Table(("split", "tumor", "normal", "unlabelled"), counts),
            Table(("slide", "split", "patches", "share of tumor"), slides, caption, "llrr") if slides else None,
        ]
    )


def _with_rounds(rounds: dict[str, Any] | None) -> dict[str, Any]:
    """The columns of a point of a label curve that has rounds."""
    if rounds is None:
        return {}
    above = rounds["against_control"] or {"value": None, "low": None, "high": None}
    return {
        **_columns("rounds", rounds["auroc"]),
        **_columns("rounds_gain", rounds["difference"]),
        **_columns("rounds_above_control", above),
    }


def _columns(name: str, score: dict[str, Any]) -> dict[str, Any]:
    return {name: score["value"], f"{name}_low": score["low"], f"{name}_high": score["high"]}


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
