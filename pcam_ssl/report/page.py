"""`report.html`: one run on one page that needs nothing else, from the run folder alone."""

from pathlib import Path

from pcam_ssl.blending.report import blend_card
from pcam_ssl.evaluation.operating_point import Target
from pcam_ssl.files import write_text
from pcam_ssl.pseudo_labels.report import rounds_cards
from pcam_ssl.render.markup import Markup, tag
from pcam_ssl.render.page import document
from pcam_ssl.report.cases import Pictures
from pcam_ssl.report.figures import curve_cards, learning_cards, reliability_card, slides_card
from pcam_ssl.report.galleries import gallery_cards, map_card
from pcam_ssl.report.model_card import FILE, model_card
from pcam_ssl.report.operating_point import decision_card, operating_card
from pcam_ssl.report.scores import folds_card, held_out_card, provenance_card, retrieval_card, score_card, verdict_block, views_card
from pcam_ssl.report.verdict import judge
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.run import Run

REPORT = "report.html"
STYLE = Path(__file__).with_name("gallery.css")
DEFAULT_TARGET = Target()
NO_PICTURES = Pictures()


def write_report(run: Run) -> Path:
    """Write `report.html` into a finished run and return its path. Raises UserError where the run is not finished or damaged."""
    return write_page(read_facts(run))


def write_page(facts: Facts, target: Target = DEFAULT_TARGET, pictures: Pictures = NO_PICTURES) -> Path:
    """Write `report.html` into the run of `facts`, with the operating point at `target`, and the model card beside it; the page's path."""
    path = facts.run.path / REPORT
    write_text(path, page(facts, target, pictures))
    write_text(facts.run.path / FILE, model_card(facts, judge(facts)))
    return path


def page(facts: Facts, target: Target = DEFAULT_TARGET, pictures: Pictures = NO_PICTURES) -> str:
    """The whole page; the same run, target and pictures give the same text."""
    verdict = judge(facts)
    name = f"{facts.run.path.resolve().name}: pcam-ssl {facts.info['command']}"
    body = [
        tag("header", tag("h1", name)),
        verdict_block(facts, verdict),
        *(
            tag("div", [tag("div", cards, class_="column") for cards in row], class_="columns")
            for row in (_scored(facts, target), _explained(facts))
        ),
        tag("div", learning_cards(facts), class_="pair"),
        tag("div", gallery_cards(pictures), class_="wide"),
        tag("div", [*rounds_cards(facts.rounds), retrieval_card(facts.scores)], class_="pair"),
        map_card(pictures),
        blend_card(facts.scores),
        folds_card(facts),
        provenance_card(facts),
        tag("footer", f"Made by pcam-ssl {facts.info['versions']['pcam-ssl']} for research. Not for diagnosis."),
    ]
    return document(name, body, STYLE.read_text(encoding="utf-8"))


def _scored(facts: Facts, target: Target) -> list[list[Markup]]:
    """Cards in columns of about equal height; a narrow page shows them one under the other."""
    return [
        [score_card(facts), held_out_card(facts)],
        curve_cards(facts),
        [operating_card(facts, target)],
    ]


def _explained(facts: Facts) -> list[list[Markup]]:
    return [[slides_card(facts)], [reliability_card(facts), views_card(facts)], [decision_card(facts)]]
