"""Explained patches as a document: a page, and the text of a terminal; and each patch as a PNG."""

import io
import re
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

import numpy as np

from pcam_ssl import __version__
from pcam_ssl.errors import UserError
from pcam_ssl.explain.centre import centre_bounds, even_share, without_centre, without_surround
from pcam_ssl.explain.explanation import Explained
from pcam_ssl.files import atomic_write, digest_text, write_text
from pcam_ssl.render import html
from pcam_ssl.render.document import Card, Document, Facts, Gallery, Group, Line, Paragraph, Scale, Section, Table
from pcam_ssl.render.format import COLOURS, LABELS, decimals, ends, percent
from pcam_ssl.render.html import picture, shorten
from pcam_ssl.render.text import aligned
from pcam_ssl.tables import CLASSES

if TYPE_CHECKING:
    from PIL import Image

PAGE = "explain.html"


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
    """File name of a patch's PNG: its id where that is a safe name, else the safe characters of it and a digest."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", id)[:100].lstrip(".")
    return f"{safe}.png" if safe and safe == id else f"{safe}-{digest_text(id)[:8]}.png"


def explain_page(explained: list[Explained], run: Path, info: dict[str, Any]) -> str:
    """The whole page; the same patches give the same text."""
    return html.page(explained_document(explained, run, info))


def explained_document(explained: list[Explained], run: Path, info: dict[str, Any]) -> Document:
    """A section for each patch, and the provenance."""
    size_px, grid = len(explained[0].pixels), explained[0].summary.map.shape
    low, high = centre_bounds(size_px)
    notes = [
        f"Outlined: the centre {high - low} px, which alone decide the label in PatchCamelyon.",
        f"The map is Grad-CAM of the call on {grid[0]} x {grid[1]} cells of {size_px / grid[1]:.0f} px, mean of the eight D4 views; finer detail is interpolation.",
        "It shows where the network looks, not whether that is right.",
    ]
    return Document(
        f"Explained: {run.resolve().name}",
        (*map(_patch, explained), _provenance(run, info)),
        intro=(Paragraph(" ".join(notes), "note"), Scale("evidence for the call: none", "strongest")),
        footer=f"Made by pcam-ssl {__version__} for research. Not for diagnosis.",
    )


def _patch(explained: Explained) -> Section:
    call = {True: "call good", False: "call bad", None: "call"}[explained.right]
    more = [
        ("prob in the run", decimals(explained.run_prob)),
        ("label", LABELS[explained.label]),
        ("slide", explained.wsi or "unknown"),
        ("split", explained.split),
        ("picture", picture_name(explained.id)),
    ]
    blocks = (
        Paragraph(call_text(explained), call),
        Gallery([_panel(*each) for each in panels(explained)], "panels"),
        Facts([*_found(explained), *more]),
        _neighbours(explained),
    )
    return Section(f"Patch {explained.id}", blocks, look="explained")


def _found(explained: Explained) -> list[tuple[str, str]]:
    """The facts of a patch beside its call, for page and text."""
    return [
        ("network", explained.network),
        ("centre", centre_text(explained)),
        ("blurred", blur_text(explained)),
        ("agreement", views_text(explained)),
    ]


def _panel(name: str, pixels: np.ndarray, words: str) -> Card:
    low, high = centre_bounds(len(pixels))
    shown = picture(pixels, f"{name}: {words}", centre_px=high - low)
    # The alt text of the picture says both.
    return Card((shown,), (Line(name, "soft", silent=True), Line(words, silent=True)))


def _neighbours(explained: Explained) -> Group | None:
    if not explained.neighbours:
        return None
    shown = zip(explained.neighbours, explained.neighbour_pixels, strict=True)
    tumor = sum(each["label"] == 1 for each in explained.neighbours)
    heading = f"{neighbours_heading(explained)}: {tumor} of {len(explained.neighbours)} tumor"
    return Group((Gallery([_neighbour(*each) for each in shown], "neighbours"),), title=heading)


def _neighbour(each: dict[str, Any], pixels: np.ndarray) -> Card:
    shown = picture(pixels, f"patch {each['id']}", side_px=96, title=each["id"])
    # The alt text of the picture holds the full id.
    name = Line(shorten(each["id"]), title=each["id"], strong=True, silent=True)
    lines = (name, LABELS[each["label"]], f"cosine {each['cosine']:.4f}", f"slide {shorten(each['wsi'] or 'unknown')}")
    return Card((shown,), lines, colour=COLOURS[each["label"]], title=each["wsi"] or "")


def _provenance(run: Path, info: dict[str, Any]) -> Section:
    method = "Grad-CAM (Selvaraju et al. 2017), in float32, of the logit at the last feature map, or at the last block's tokens of a vision transformer"
    named = [
        ("Run", run),
        ("Dataset", f"{info['dataset']}, digest {info['dataset_digest']}"),
        ("Recipe digest", info["recipe_digest"]),
        ("Method", method),
    ]
    return Section("Provenance", (Facts(named),))


PANEL_PX, GAP_PX, HEAD_PX, FOOT_PX = 288, 16, 64, 34
FONT_PX = 18
STRONGEST = 0.7
"""Opacity of the colour where the map is highest."""


def panels(explained: Explained) -> list[tuple[str, np.ndarray, str]]:
    """(name, pixels uint8 `[H, H, 3]`, number in words) of the four pictures of a patch."""
    summary, patch = explained.summary, explained.pixels
    share = "no map" if summary.centre_share is None else f"{percent(summary.centre_share)} in the centre"
    return [
        ("the patch", patch, f"prob {summary.prob:.3f}"),
        (f"evidence for {CLASSES[summary.call]}", laid_over(patch, summary.map), share),
        ("centre blurred", without_centre(patch[None])[0], f"prob {summary.prob_without_centre:.3f}"),
        ("surround blurred", without_surround(patch[None])[0], f"prob {summary.prob_without_surround:.3f}"),
    ]


def laid_over(patch: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """The map `[h, w]` as colour over the patch in grey: none where it is zero, yellow where it is highest; uint8 `[H, H, 3]`."""
    import cv2  # here, so that reports without explanations do not load it

    size_px = len(patch)
    smooth = cv2.resize(np.asarray(cells, np.float32), (size_px, size_px), interpolation=cv2.INTER_LINEAR)
    height = smooth / smooth.max() if smooth.max() > 0 else smooth
    colour = cv2.cvtColor(cv2.applyColorMap(np.uint8(255 * height), cv2.COLORMAP_PLASMA), cv2.COLOR_BGR2RGB)
    grey = cv2.cvtColor(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    opacity = STRONGEST * np.sqrt(height)[..., None]
    return np.uint8(np.rint(opacity * colour + (1 - opacity) * grey))


def strip(explained: Explained) -> "Image.Image":
    """All four pictures side by side with their words: the PNG of a patch."""
    from PIL import Image, ImageDraw, ImageFont  # here, since reports without explanations do without it

    shown = panels(explained)
    width = len(shown) * (PANEL_PX + GAP_PX) + GAP_PX
    image = Image.new("RGB", (width, HEAD_PX + PANEL_PX + FOOT_PX), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_PX)
    slide = "slide unknown" if explained.wsi is None else f"slide {shorten(explained.wsi, 40)}"
    draw.text((GAP_PX, 10), f"{shorten(explained.id, 44)}: {LABELS[explained.label]}, {slide}", "black", font)
    for n, (name, pixels, words) in enumerate(shown):
        left = GAP_PX + n * (PANEL_PX + GAP_PX)
        draw.text((left, HEAD_PX - 26), name, "#586272", font)
        image.paste(Image.fromarray(pixels).resize((PANEL_PX, PANEL_PX), Image.Resampling.BICUBIC), (left, HEAD_PX))
        low, high = (HEAD_PX + bound * PANEL_PX // len(pixels) for bound in centre_bounds(len(pixels)))
        box = (left + low - HEAD_PX, low, left + high - HEAD_PX, high)
        draw.rectangle(box, outline="black", width=3)
        draw.rectangle(box, outline="white", width=1)
        draw.text((left, HEAD_PX + PANEL_PX + 6), words, "black", font)
    return image


FLAT = "the map is flat: no part of the patch is evidence for the call"


def call_text(explained: Explained) -> str:
    """The call, its prob, and whether it agrees with the label."""
    summary = explained.summary
    verdict = {True: "right", False: f"wrong, the label is {LABELS[explained.label]}", None: "no label to compare with"}
    return f"{CLASSES[summary.call]} (prob {summary.prob:.3f}): {verdict[explained.right]}"


def centre_text(explained: Explained) -> str:
    """How much of the attribution lies in the centre, against an even spread."""
    share, even = explained.summary.centre_share, even_share(len(explained.pixels))
    return FLAT if share is None else f"{percent(share)} of the attribution lies in the centre ({percent(even)} if spread evenly)"


def blur_text(explained: Explained) -> str:
    """The prob with the centre or the surround blurred, and whether the call changes."""
    summary = explained.summary
    parts = []
    for what, prob in (("centre", summary.prob_without_centre), ("surround", summary.prob_without_surround)):
        changed = "" if (prob >= 0.5) == bool(summary.call) else f", which changes the call to {CLASSES[1 - summary.call]}"
        parts.append(f"prob {prob:.3f} with the {what} blurred{changed}")
    return "; ".join(parts)


def views_text(explained: Explained) -> str:
    """How far the D4 views agree in their calls and their maps."""
    summary = explained.summary
    calls = f"{summary.views_alike} of {summary.n_views} D4 views give this call"
    return (
        calls if summary.view_agreement is None else f"{calls}; their maps correlate {summary.view_agreement:.2f} (1 is the same)"
    )


def neighbours_heading(explained: Explained) -> str:
    """Which neighbours are shown, and in which embedding."""
    others = "of other slides" if explained.wsi else "(its slide is unknown: near duplicates left out)"
    return f"Nearest labelled patches {others} in the embedding of fold {explained.folds[0]}"


def explained_text(explained: Explained) -> str:
    """A block of lines on one patch."""
    network, *found = _found(explained)
    table = Table((), [network, ("call", call_text(explained)), *found], align="ll")
    lines = [
        f"patch {explained.id}: {LABELS[explained.label]}, slide {explained.wsi or 'unknown'}, {explained.split}",
        indent(aligned(table), "  "),
    ]
    if explained.neighbours:
        rows = [
            (f"{each['cosine']:.4f}", LABELS[each["label"]], f"slide {each['wsi'] or 'unknown'}", each["id"])
            for each in explained.neighbours
        ]
        lines += [f"  {neighbours_heading(explained)}:", indent(aligned(Table((), rows, align="llll")), "    ")]
    return "\n".join(lines)


def fold_text(facts: dict[str, Any]) -> str:
    """The table of `pcam-ssl explain RUN --whole-fold K`."""
    titles = (("all", "all"), ("right", "called right"), ("wrong", "called wrong"))
    rows = [[title, f"{facts[name]['n']:,}", *_mean(facts[name])] for name, title in titles]
    rows.append(["right - wrong", "", *_mean(facts["difference"], "+.3f")])
    lines = [
        f"fold {facts['fold']}: {facts['n']:,} patches, explained by the network that was not trained on them, one unaugmented view each",
        f"share of the attribution in the centre; {percent(facts['even_share'])} if spread evenly",
        aligned(Table(("", "patches", "mean share", "95 % interval"), rows, align="lrll")),
        f"interval: {facts['interval']}",
    ]
    if facts["flat"]:
        lines.append(f"{facts['flat']:,} patches whose map is flat are left out")
    return "\n".join(lines)


def _mean(score: dict[str, Any], form: str = ".3f") -> tuple[str, str]:
    """A mean, and its interval or why there is none."""
    value = "-" if score["value"] is None else f"{score['value']:{form}}"
    return value, ends(score, form) or f"({score['reason']})"
