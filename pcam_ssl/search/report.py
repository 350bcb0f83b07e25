"""Neighbours of queries as a page and as text."""

import base64
import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pcam_ssl import __version__
from pcam_ssl.files import write_text
from pcam_ssl.neighbors.search import SearchResult
from pcam_ssl.render.markup import Markup, card, fold_out, table, tag
from pcam_ssl.render.page import document
from pcam_ssl.render.thumbnails import shorten

STYLE = Path(__file__).with_name("neighbours.css")
CENTRE_PX = 32
SHOWN = {"id": 10, "image": 24, "slide": 40}
"""Letters of a longer name that are shown; its title has all."""
COLOURS = {1: "c2", 0: "c1", None: "c0"}


def write_neighbours_page(
    path: Path | str, result: SearchResult, queries: list[np.ndarray], neighbours: list[list[np.ndarray]]
) -> None:
    """Write the page whole or not at all. Patches are uint8 [H, H, 3]: `queries` [Q], and the found ones of each in order of rank."""
    write_text(path, neighbours_page(result, queries, neighbours))


def neighbours_page(result: SearchResult, queries: list[np.ndarray], neighbours: list[list[np.ndarray]]) -> str:
    """The whole page; the same search gives the same text."""
    name = f"Neighbours in {Path(result.facts['run']).resolve().name}"
    sections = [
        _query_card(query, result.facts, patch, found)
        for query, patch, found in zip(result.each(), queries, neighbours, strict=True)
    ]
    size_px = queries[0].shape[0]
    outline = f" Outlined: the centre {CENTRE_PX} px, which alone decide the label in PatchCamelyon." if size_px > CENTRE_PX else ""
    legend = "Orange: tumor; blue: normal; grey: unlabelled."
    if result.gallery["prob"].notna().any():
        legend += " prob is of tumor, calibrated: out of fold, or on the test split the mean of all folds."
    body = [
        tag("header", tag("h1", name), tag("p", legend + outline, class_="note")),
        *sections,
        _provenance(result),
        tag("footer", f"Made by pcam-ssl {__version__} for research. Not for diagnosis."),
    ]
    return document(name, body, STYLE.read_text(encoding="utf-8"))


def _query_card(query: dict[str, Any], facts: dict[str, Any], patch: np.ndarray, found: list[np.ndarray]) -> Markup:
    neighbours = query["neighbours"]
    short = shortfall_text(query, facts["k"])
    cards = [_neighbour_card(neighbour, pixels) for neighbour, pixels in zip(neighbours, found, strict=True)]
    rows = [
        [
            n["rank"],
            tag("span", n["id"]),
            _decimals(n["cosine"], 6),
            LABELS[n["label"]],
            _decimals(n["prob"], 3),
            n["wsi"] or "-",
            n["split"],
        ]
        for n in neighbours
    ]
    head = ["rank", "id", "cosine", "label", "prob", "slide", "split"]
    return tag(
        "section",
        tag("h2", f"Query {name_of(query)}"),
        tag("p", _tally(neighbours), class_="tally"),
        tag("div", _picture(patch, f"Query {name_of(query)}: {LABELS[query['label']]}, {_slide(query)}"), _facts_of(query)),
        tag(
            "div",
            tag("ol", cards, class_="found") if cards else None,
            tag("p", short, class_="warning") if short else None,
            tag("p", f"Left out: {left_out_text(query)}.", class_="note"),
            fold_out("As a table, with full ids", table(head, rows, f"Neighbours of {name_of(query)}")) if rows else None,
        ),
        class_="card asked",
    )


def _neighbour_card(neighbour: dict[str, Any], pixels: np.ndarray) -> Markup:
    label = LABELS[neighbour["label"]]
    cosine = _decimals(neighbour["cosine"], 4)
    alt = f"Neighbour {neighbour['rank']}: {label}, {_slide(neighbour)}, cosine {cosine}"
    head = tag("div", tag("span", f"{neighbour['rank']}", class_="rank"), tag("span", label, class_="class"), class_="line")
    return tag("li", _picture(pixels, alt), head, _facts_of(neighbour, cosine), class_=COLOURS[neighbour["label"]])


def _facts_of(patch: dict[str, Any], cosine: str | None = None) -> Markup:
    """What is known of a query, or with `cosine` of a neighbour."""
    named = [("cosine", cosine)] if cosine else [("label", LABELS[patch["label"]])]
    named += [("prob", _decimals(patch["prob"], 3)), ("slide", patch["wsi"] or "unknown"), ("split", patch["split"] or "-")]
    named.append(("id", patch["id"]) if patch["id"] else ("image", patch["image"]))
    return tag(
        "dl", [[tag("dt", name), tag("dd", shorten(value, SHOWN.get(name, len(value))), title=value)] for name, value in named]
    )


def _picture(pixels: np.ndarray, alt: str) -> Markup:
    size_px = pixels.shape[0]
    edge = f"--edge: {50 * (size_px - CENTRE_PX) / size_px:.4f}%"
    outline = tag("i", style=edge) if size_px > CENTRE_PX else None
    # An image element has no end tag, which is all that `tag` writes.
    image = Markup(tag("img", src=_data_uri(pixels), alt=alt, width=size_px, height=size_px).removesuffix("</img>"))
    return tag("span", image, outline, class_="patch")


def _data_uri(pixels: np.ndarray) -> str:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, "PNG")
    return "data:image/png;base64," + base64.b64encode(held.getvalue()).decode()


def _tally(neighbours: list[dict[str, Any]]) -> str:
    if not neighbours:
        return "No neighbour"
    counts = Counter(LABELS[neighbour["label"]] for neighbour in neighbours)
    classes = ", ".join(f"{counts[name]} {name}" for name in LABELS.values() if counts[name])
    slides = len({neighbour["wsi"] for neighbour in neighbours} - {None})
    where = f" from {slides} slide{'s' if slides > 1 else ''}" if slides else ""
    return f"{classes}{where}; cosine {_decimals(neighbours[0]['cosine'], 3)} to {_decimals(neighbours[-1]['cosine'], 3)}"


def _slide(patch: dict[str, Any]) -> str:
    return f"slide {patch['wsi']}" if patch["wsi"] else "slide unknown"


def _decimals(value: float | None, n: int) -> str:
    return "-" if value is None else f"{value:.{n}f}"


def _provenance(result: SearchResult) -> Markup:
    facts, index = result.facts, result.facts["index"]
    parameters = "".join(f", {name} {value}" for name, value in index["parameters"].items())
    exact = "exact" if index["exact"] else f"approximate{parameters}"
    named = [
        ("Searched", f"{facts['run']}, {facts['gallery']:,} patches"),
        ("Network", f"digest {facts['network_digest']}"),
        ("Dataset", f"{facts['dataset']}, digest {facts['dataset_digest']}"),
        ("Index", f"{index['factory']} ({exact}), built {index['created']}"),
        ("Backend", f"{facts['backend']['name']} ({facts['backend']['reason']})"),
        ("Own slide", "kept, by --any-slide" if facts["any_slide"] else "left out; where slides are unknown, duplicates are"),
    ]
    return card("Where it comes from", tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in named]))


LABELS = {1: "tumor", 0: "normal", None: "unlabelled"}
HEAD = ("rank", "cosine", "label", "prob", "split", "slide", "id")


def neighbours_text(result: SearchResult) -> str:
    """A block for each query: what it is, what was left out, its neighbours by rank."""
    return "\n\n".join("\n".join(_block(query, result.facts["k"])) for query in result.each())


def _block(query: dict[str, Any], k: int) -> list[str]:
    known = [LABELS[query["label"]], f"slide {query['wsi'] or 'unknown'}"]
    known += [query["split"]] if query["split"] else []
    known += [f"prob {query['prob']:.3f}"] if query["prob"] is not None else []
    lines = _table([_cells(neighbour) for neighbour in query["neighbours"]]) if query["neighbours"] else []
    short = shortfall_text(query, k)
    return [f"query {name_of(query)}: {', '.join(known)}", f"left out: {left_out_text(query)}", *lines, *([short] if short else [])]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    lines = [[_aligned(*cell) for cell in zip(row, widths, HEAD, strict=True)] for row in (HEAD, *rows)]
    return ["  ".join(cells).rstrip() for cells in lines]


def _cells(neighbour: dict[str, Any]) -> tuple[str, ...]:
    prob = "-" if neighbour["prob"] is None else f"{neighbour['prob']:.3f}"
    slide = neighbour["wsi"] or "-"
    return (
        str(neighbour["rank"]),
        f"{neighbour['cosine']:.4f}",
        LABELS[neighbour["label"]],
        prob,
        neighbour["split"],
        slide,
        neighbour["id"],
    )


def _aligned(text: str, width: int, name: str) -> str:
    return text.rjust(width) if name in ("rank", "cosine", "prob") else text.ljust(width)


def name_of(query: dict[str, Any]) -> str:
    """The query's id, or the file of its image."""
    return query["id"] or query["image"]


def left_out_text(query: dict[str, Any]) -> str:
    """Which gallery patches the query could not find, counted."""
    counts = query["left_out"]
    parts = ["the patch itself"] if counts["itself"] else []
    if counts["own_slide"]:
        others = "others" if counts["itself"] else "patches"
        parts.append(f"{counts['own_slide']:,} {others} of its slide {query['wsi']}")
    if counts["duplicates"]:
        parts.append(f"{counts['duplicates']:,} exact or near duplicate{'s' if counts['duplicates'] > 1 else ''}")
    return ", ".join(parts) or "nothing"


def shortfall_text(query: dict[str, Any], k: int) -> str | None:
    """Why there are fewer than k neighbours, or None where there are k."""
    n = len(query["neighbours"])
    return None if n == k else f"only {n:,} of {k:,}: all other patches of the gallery are left out"
