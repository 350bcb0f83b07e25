"""One self-contained page of explained patches, and a PNG of each. No torch."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl import __version__
from pcam_ssl.errors import UserError
from pcam_ssl.explain.attribution_facts import Explained
from pcam_ssl.explain.centre import centre_bounds
from pcam_ssl.explain.explain_picture import panels, strip
from pcam_ssl.explain.explain_text import blur_text, call_text, centre_text, label_of, neighbours_heading, views_text
from pcam_ssl.files import atomic_write, digest_text, write_text
from pcam_ssl.render.markup import Markup, card, tag
from pcam_ssl.render.thumbnails import data_uri, shorten, thumbnail
from pcam_ssl.report.page import document

PAGE = "explain.html"
STYLE = Path(__file__).with_name("explain.css")
COLOURS = {1: "c2", 0: "c1", None: "c0"}


def write_explained(folder: Path | str, explained: list[Explained], run: Path, info: dict[str, Any]) -> Path:
    """Write explain.html and ID.png of each patch into `folder`; the path of the page. Raises UserError where it cannot be written."""
    folder = Path(folder)
    try:
        for each in explained:
            buffer = io.BytesIO()
            strip(each).save(buffer, "PNG")
            with atomic_write(folder / picture_name(each.id)) as temporary:
                temporary.write_bytes(buffer.getvalue())
        write_text(folder / PAGE, explain_page(explained, run, info))
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror}); name another folder") from None
    return folder / PAGE


def picture_name(id: str) -> str:
    """File name of a patch's PNG: its id where that can be one, else its letters that can and a digest."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", id)[:100].lstrip(".")
    return f"{safe}.png" if safe and safe == id else f"{safe}-{digest_text(id)[:8]}.png"


def explain_page(explained: list[Explained], run: Path, info: dict[str, Any]) -> str:
    """The whole page; the same patches give the same text."""
    name = f"Explained: {run.resolve().name}"
    size_px, grid = len(explained[0].pixels), explained[0].summary.map.shape
    low, high = centre_bounds(size_px)
    notes = [
        f"Outlined: the centre {high - low} px, which alone decide the label in PatchCamelyon.",
        f"The map is Grad-CAM of the call on {grid[0]} x {grid[1]} cells of {size_px / grid[1]:.0f} px, mean of the eight D4 views; finer detail is interpolation.",
        "It shows where the network looks, not whether that is right.",
    ]
    scale = tag("p", "speaks for the call: not", tag("i"), "most", class_="scale")
    body = [
        tag("header", tag("h1", name), tag("p", " ".join(notes), class_="note"), scale),
        [_patch(each) for each in explained],
        _provenance(run, info),
        tag("footer", f"Made by pcam-ssl {__version__} for research. Not for diagnosis."),
    ]
    return document(name, body, STYLE.read_text(encoding="utf-8"))


def _patch(explained: Explained) -> Markup:
    mark = {True: "good", False: "bad", None: ""}[explained.right]
    named = [
        ("network", explained.network),
        ("centre", centre_text(explained)),
        ("blurred", blur_text(explained)),
        ("agreement", views_text(explained)),
        ("prob in the run", "-" if explained.run_prob is None else f"{explained.run_prob:.3f}"),
        ("label", label_of(explained.label)),
        ("slide", explained.wsi or "unknown"),
        ("split", explained.split),
        ("picture", picture_name(explained.id)),
    ]
    shown = [_panel(*each) for each in panels(explained)]
    return tag(
        "section",
        tag("h2", f"Patch {explained.id}"),
        tag("p", call_text(explained), class_=f"call {mark}".strip()),
        tag("div", shown, class_="panels"),
        tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in named]),
        _neighbours(explained),
        class_="card asked",
    )


def _panel(name: str, pixels: np.ndarray, words: str) -> Markup:
    size_px = len(pixels)
    low, _ = centre_bounds(size_px)
    # An image element has no end tag, which is all that `tag` writes.
    image = Markup(tag("img", src=data_uri(pixels), alt=f"{name}: {words}", width=size_px, height=size_px).removesuffix("</img>"))
    outlined = tag("span", image, tag("i", style=f"--edge: {100 * low / size_px:.4f}%"), class_="patch")
    return tag("figure", outlined, tag("figcaption", tag("span", name), words))


def _neighbours(explained: Explained) -> Markup | None:
    if not explained.neighbours:
        return None
    items = []
    for each, pixels in zip(explained.neighbours, explained.neighbour_pixels, strict=True):
        lines = [label_of(each["label"]), f"cosine {each['cosine']:.4f}", f"slide {shorten(each['wsi'] or 'unknown')}"]
        items.append(tag("li", thumbnail(pixels, each["id"], *lines), class_=COLOURS[each["label"]], title=each["wsi"]))
    tumor = sum(each["label"] == 1 for each in explained.neighbours)
    heading = f"{neighbours_heading(explained)}: {tumor} of {len(items)} tumor"
    return tag("div", tag("h3", heading), tag("ol", items, class_="near"))


def _provenance(run: Path, info: dict[str, Any]) -> Markup:
    named = [
        ("Run", run),
        ("Dataset", f"{info['dataset']}, digest {info['dataset_digest']}"),
        ("Recipe digest", info["recipe_digest"]),
    ]
    method = "Grad-CAM (Selvaraju et al. 2017) by captum, in float32, of the logit at the last feature map, or at the last block's tokens of a vision transformer"
    return card(
        "Where it comes from", tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in [*named, ("Method", method)]])
    )
