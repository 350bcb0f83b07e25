"""Neighbours of queries as a document: a page, and the text of a terminal."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl import __version__
from pcam_ssl.files import write_text
from pcam_ssl.neighbors.search import SearchResult
from pcam_ssl.render import html
from pcam_ssl.render.document import Card, Cell, Details, Document, Facts, Gallery, Group, Line, Paragraph, Picture, Section, Table
from pcam_ssl.render.format import COLOURS, LABELS, decimals
from pcam_ssl.render.html import picture, shorten
from pcam_ssl.render.text import aligned

CENTRE_PX = 32
SHOWN = {"id": 10, "image": 24, "slide": 40}
"""Characters shown of a longer name; its title has all of them."""
COLUMNS = ("rank", "cosine", "label", "prob", "split", "slide", "id")
COLUMNS_OF_PAGE = ("rank", "id", "cosine", "label", "prob", "slide", "split")


def write_neighbours_page(
    path: Path | str, result: SearchResult, queries: list[np.ndarray], neighbours: list[list[np.ndarray]]
) -> None:
    """Write the page whole or not at all. Patches are uint8 [H, H, 3]: `queries` [Q], and the found ones of each in order of rank."""
    write_text(path, neighbours_page(result, queries, neighbours))


def neighbours_page(result: SearchResult, queries: list[np.ndarray], neighbours: list[list[np.ndarray]]) -> str:
    """The whole page; the same search gives the same text."""
    return html.page(neighbours_document(result, queries, neighbours))


def neighbours_text(result: SearchResult) -> str:
    """A block for each query: what it is, what was left out, its neighbours by rank."""
    return "\n\n".join("\n".join(_lines(query, result.facts)) for query in result.each())


def neighbours_document(result: SearchResult, queries: list[np.ndarray], neighbours: list[list[np.ndarray]]) -> Document:
    """Queries beside their neighbours, patches as in `write_neighbours_page`."""
    sections = [
        _query(query, result.facts, patch, found) for query, patch, found in zip(result.each(), queries, neighbours, strict=True)
    ]
    outlined = len(queries[0]) > CENTRE_PX
    outline = f" Outlined: the centre {CENTRE_PX} px, which alone decide the label in PatchCamelyon." if outlined else ""
    legend = "Orange: tumor; blue: normal; grey: unlabelled."
    if result.gallery["prob"].notna().any():
        legend += " prob: calibrated probability of tumor, out of fold; on the test split, the mean of all folds."
    return Document(
        f"Neighbours in {Path(result.facts['run']).resolve().name}",
        (*sections, _provenance(result.facts)),
        intro=(Paragraph(legend + outline, "note"),),
        footer=f"Made by pcam-ssl {__version__} for research. Not for diagnosis.",
    )


def _query(query: dict[str, Any], facts: dict[str, Any], patch: np.ndarray, found: list[np.ndarray]) -> Section:
    neighbours = query["neighbours"]
    short = shortfall_text(query, facts)
    cards = [_card(neighbour, pixels) for neighbour, pixels in zip(neighbours, found, strict=True)]
    name = f"Query {name_of(query)}"
    shown = (_outlined(patch, f"{name}: {LABELS[query['label']]}, {_slide(query)}"), _facts(query))
    table = _table(neighbours, COLUMNS_OF_PAGE, 6, caption=f"Neighbours of {name_of(query)}")
    results = (
        Gallery(cards, "found") if cards else None,
        Paragraph(short, "warning") if short else None,
        Paragraph(f"Left out: {left_out_text(query)}.", "note"),
        Details("As a table, with full ids", (table,)) if neighbours else None,
    )
    return Section(name, (Paragraph(_tally(neighbours), "tally"), Group(shown), Group(results)), look="query")


def _card(neighbour: dict[str, Any], pixels: np.ndarray) -> Card:
    label, cosine = LABELS[neighbour["label"]], decimals(neighbour["cosine"], 4)
    shown = _outlined(pixels, f"Neighbour {neighbour['rank']}: {label}, {_slide(neighbour)}, cosine {cosine}")
    # The alt text of the picture says both.
    lines = [Line(str(neighbour["rank"]), "rank", silent=True), Line(label, "class", silent=True)]
    return Card((shown,), lines, _facts(neighbour, cosine), colour=COLOURS[neighbour["label"]])


def _facts(patch: dict[str, Any], cosine: str | None = None) -> Facts:
    """Label, prob, slide, split and name of a query; with `cosine`, of a neighbour."""
    named = [("cosine", cosine)] if cosine else [("label", LABELS[patch["label"]])]
    named += [("prob", decimals(patch["prob"])), ("slide", patch["wsi"] or "unknown"), ("split", patch["split"] or "-")]
    named += [("x, y", f"{patch['x']}, {patch['y']}")] if patch.get("x") is not None else []
    named.append(("id", patch["id"]) if patch["id"] else ("image", patch["image"]))
    return Facts([(name, Cell(shorten(value, SHOWN.get(name, len(value))), title=value)) for name, value in named])


def _outlined(pixels: np.ndarray, alt: str) -> Picture:
    # PNG keeps the pixels that were searched, to the bit.
    return picture(pixels, alt, "png", centre_px=CENTRE_PX)


def _table(neighbours: list[dict[str, Any]], columns: Sequence[str], digits: int, **more: str) -> Table:
    """A row a neighbour; cosines with so many `digits`."""
    rows = []
    for neighbour in neighbours:
        values = {
            **{name: str(neighbour[name]) for name in ("rank", "id", "split")},
            "cosine": decimals(neighbour["cosine"], digits),
            "label": LABELS[neighbour["label"]],
            "prob": decimals(neighbour["prob"]),
            "slide": neighbour["wsi"] or "-",
        }
        rows.append([values[name] for name in columns])
    return Table(columns, rows, **more)


def _tally(neighbours: list[dict[str, Any]]) -> str:
    if not neighbours:
        return "No neighbour"
    counts = Counter(LABELS[neighbour["label"]] for neighbour in neighbours)
    classes = ", ".join(f"{counts[name]} {name}" for name in LABELS.values() if counts[name])
    slides = len({neighbour["wsi"] for neighbour in neighbours} - {None})
    where = f" from {slides} slide{'s' if slides > 1 else ''}" if slides else ""
    return f"{classes}{where}; cosine {decimals(neighbours[0]['cosine'])} to {decimals(neighbours[-1]['cosine'])}"


def _slide(patch: dict[str, Any]) -> str:
    return f"slide {patch['wsi']}" if patch["wsi"] else "slide unknown"


def _provenance(facts: dict[str, Any]) -> Section:
    index = facts["index"]
    parameters = "".join(f", {name} {value}" for name, value in index["parameters"].items())
    exact = "exact" if index["exact"] else f"approximate{parameters}"
    named = [
        ("Searched", f"{facts['run']}, {facts['gallery']:,} patches"),
        ("Network", f"digest {facts['network_digest']}"),
        ("Dataset", f"{facts['dataset']}, digest {facts['dataset_digest']}"),
        ("Index", f"{index['factory']} ({exact}), built {index['created']}"),
        ("Backend", f"{facts['backend']['name']} ({facts['backend']['reason']})"),
        (
            "Own slide",
            "included (--any-slide)" if facts["any_slide"] else "left out; where the slide is unknown, duplicates are left out",
        ),
    ]
    named += [("Only", f"{name} {', '.join(map(str, values))}") for name, values in facts.get("only", {}).items()]
    return Section("Provenance", (Facts(named),))


def _lines(query: dict[str, Any], facts: dict[str, Any]) -> list[str]:
    known = [LABELS[query["label"]], _slide(query)]
    known += [query["split"]] if query["split"] else []
    known += [f"prob {query['prob']:.3f}"] if query["prob"] is not None else []
    lines = [f"query {name_of(query)}: {', '.join(known)}", f"left out: {left_out_text(query)}"]
    if query["neighbours"]:
        lines.append(aligned(_table(query["neighbours"], COLUMNS, 4, align="rrlrlll")))
    short = shortfall_text(query, facts)
    return [*lines, *([short] if short else [])]


def name_of(query: dict[str, Any]) -> str:
    """The query's id, or the file of its image."""
    return query["id"] or query["image"]


def left_out_text(query: dict[str, Any]) -> str:
    """Gallery patches that were left out for the query, with counts."""
    counts = query["left_out"]
    parts = ["the patch itself"] if counts["itself"] else []
    if counts["own_slide"]:
        others = "others" if counts["itself"] else "patches"
        parts.append(f"{counts['own_slide']:,} {others} of its slide {query['wsi']}")
    if counts["duplicates"]:
        parts.append(f"{counts['duplicates']:,} exact or near duplicate{'s' if counts['duplicates'] > 1 else ''}")
    return ", ".join(parts) or "nothing"


def shortfall_text(query: dict[str, Any], facts: dict[str, Any]) -> str | None:
    """Why there are fewer than k neighbours, or None where there are k; `facts` are those of the search."""
    n, k = len(query["neighbours"]), facts["k"]
    if n == k:
        return None
    if not facts["index"]["exact"] and facts["backend"]["name"].startswith("milvus"):
        # An approximate index in memory is searched again until it has found all that are allowed; a store is asked once.
        why = f"the index {facts['index']['factory']} of the store found no more"
    elif "only" in facts:
        why = "no other patch passes the filters"
    else:
        why = "all other patches of the gallery are left out"
    return f"only {n:,} of {k:,}: {why}"
