"""`pcam-ssl report RUN...`: pages of runs with what their datasets and networks add; without either a page is made all the same. No torch."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.neighbors.embedding_map import METHODS
from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.page import write_page
from pcam_ssl.report.report_cases import shown_cases
from pcam_ssl.report.reports import Report, write_reports
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.recorded import recorded_dataset
from pcam_ssl.runs.run import ROUNDS_FILE, Run


@dataclass(frozen=True)
class Asked:
    """What a report asks of a run's networks: nothing where `explain` is false. `data`: where its dataset lies, where that has moved."""

    explain: bool = True
    method: str = METHODS[0]
    data: Path | str | None = None
    device: str = "auto"


def report_runs(paths: Iterable[Path], target: Target, asked: Asked) -> list[Report]:
    """Write the page and the model card of each run. Raises UserError, before anything is written, for runs that have no report."""
    if asked.method not in METHODS:
        raise UserError(f"--map {asked.method}: choose {' or '.join(METHODS)}")
    return write_reports(list(paths), target, lambda facts: pictures_of(facts, asked))


def first_report(run: Run) -> Path:
    """The page of a run that has just ended: all but what its networks would have to be asked for. Raises UserError as `read_facts` does."""
    facts = read_facts(run)
    return write_page(facts, pictures=pictures_of(facts, Asked(explain=False)))


def pictures_of(facts: Facts, asked: Asked) -> Pictures:
    """Galleries and maps of a run, or the reason why a part is not there.

    Raises UserError where `data` is named and is not the run's dataset, and for a map by another method than PCA that cannot be made.
    """
    try:
        dataset = recorded_dataset(facts.run.path, facts.info["dataset"], facts.info["dataset_digest"], asked.data)
    except UserError as error:
        if asked.data is not None:
            raise
        return _without(error)
    if facts.oof is None:
        return _without(UserError("oof.parquet is not in the run folder"))
    pictures = shown_cases(facts.labelled, dataset)
    return _asked(facts, dataset, pictures, asked) if asked.explain else pictures


def _asked(facts: Facts, dataset: Dataset, pictures: Pictures, asked: Asked) -> Pictures:
    """The same with what the networks say."""
    from pcam_ssl.report.evidence import explain_cases, lay_out
    from pcam_ssl.runs.networks import open_networks

    # A run that rounds were made on would otherwise stand for the best of them.
    own = 0 if (facts.run.path / ROUNDS_FILE).exists() else None
    try:
        networks = open_networks(facts.run.path, dataset.path, own)
    except UserError as error:
        return replace(pictures, no_explanations=error.problems[0], no_maps=error.problems[0])
    pictures = explain_cases(pictures, networks, asked.device)
    try:
        return lay_out(pictures, facts.labelled, networks, asked.method, facts.recipe.get("seed", 0), asked.device)
    except UserError as error:
        if asked.method != METHODS[0]:
            raise
        return replace(pictures, no_maps=error.problems[0])


def _without(error: UserError) -> Pictures:
    reason = error.problems[0]
    return Pictures(no_cases=reason, no_explanations=reason, no_maps=reason)
