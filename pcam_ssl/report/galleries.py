"""The surest wrong and the least sure patches of a run, each with what the network looks at and its nearest labelled patches. No torch."""

import numpy as np
from PIL import Image

from pcam_ssl.explain.attribution_facts import CLASSES
from pcam_ssl.explain.centre import centre_bounds, even_share
from pcam_ssl.explain.explain_picture import laid_over
from pcam_ssl.explain.explain_text import label_of, percent
from pcam_ssl.render.markup import Markup, absent, card, join, tag
from pcam_ssl.render.thumbnails import data_uri, shorten
from pcam_ssl.report.cases import Case, Pictures

COLOURS = {1: "c2", 0: "c1", None: "c0"}
MOST_PX = 96
"""Pictures are no larger, so that two dozen patches with neighbours stay under a megabyte."""

WRONG, UNSURE = "Surest wrong", "Least sure"
WRONG_TOLD = "On the wrong side of prob 0.5, the surest first: look for wrong labels, artefacts, and what a slide has of its own."
UNSURE_TOLD = "Nearest to prob 0.5, right or wrong."


def gallery_cards(pictures: Pictures) -> list[Markup]:
    """Both galleries, or why they are not there."""
    if pictures.no_cases:
        return [absent(title, pictures.no_cases) for title in (WRONG, UNSURE)]
    legend = _legend(pictures)
    if not pictures.wrong:
        none = absent(WRONG, "no scored patch is on the wrong side of prob 0.5")
        return [none, _card(UNSURE, f"{UNSURE_TOLD} {legend}", pictures.unsure)]
    return [
        _card(WRONG, f"{WRONG_TOLD} {legend}", pictures.wrong),
        _card(UNSURE, f"{UNSURE_TOLD} Shown as above.", pictures.unsure),
    ]


def _legend(pictures: Pictures) -> str:
    """What the pictures of a patch are."""
    size_px = len(pictures.unsure[0].pixels)
    low, high = centre_bounds(size_px)
    told = [f"Outlined: the centre {high - low} px, which alone decide the label in PatchCamelyon. Orange: tumor; blue: normal."]
    if pictures.no_explanations is None:
        even = percent(even_share(size_px))
        told.append("Beside each patch: what speaks for the call, by Grad-CAM of the fold that never saw it,")
        told.append(f"and its share in the centre ({even} if spread evenly).")
    else:
        told.append(f"Explanations are not shown: {pictures.no_explanations}.")
    if pictures.asked:
        told.append(f"Beneath: the nearest labelled patches of other slides, {pictures.asked}.")
    return " ".join(told)


def _card(title: str, note: str, cases: list[Case]) -> Markup:
    return card(title, tag("p", note, class_="note"), tag("ol", [_case(case) for case in cases], class_="cases"))


def _case(case: Case) -> Markup:
    slide = "slide unknown" if case.wsi is None else f"slide {shorten(case.wsi, 30)}"
    lines = [f"prob {case.prob:.3f}, fold {case.fold}", slide]
    pictures = [_outlined(case.pixels, f"patch {case.id}")]
    if case.explained is not None:
        summary = case.explained.summary
        pictures.append(_outlined(laid_over(case.pixels, summary.map), f"what speaks for {CLASSES[summary.call]}"))
        lines.append("flat map" if summary.centre_share is None else f"{percent(summary.centre_share)} in the centre")
    caption = tag(
        "figcaption",
        tag("b", f"{label_of(case.label)}, called {case.call}"),
        [tag("span", line) for line in lines],
        tag("span", shorten(case.id, 22), title=case.id, class_="id", aria_hidden="true"),
    )
    return tag(
        "li", tag("figure", tag("div", pictures, class_="shown-patch"), caption), _neighbours(case), class_=COLOURS[case.label]
    )


def _neighbours(case: Case) -> Markup | None:
    if not case.neighbours:
        return None
    shown = []
    for each, pixels in zip(case.neighbours, case.neighbour_pixels, strict=True):
        slide = f"slide {each['wsi']}" if each["wsi"] else "slide unknown"
        words = f"near: {label_of(each['label'])}, cosine {each['cosine']:.2f}, {slide}"
        shown.append(tag("span", _image(pixels, words), class_=f"near {COLOURS[each['label']]}", title=words))
    return tag("div", shown, class_="nearest")


def _outlined(pixels: np.ndarray, words: str) -> Markup:
    low, _ = centre_bounds(len(pixels))
    return tag("span", _image(pixels, words), tag("i", style=f"--edge: {100 * low / len(pixels):.3f}%"), class_="patch")


def _image(pixels: np.ndarray, words: str) -> Markup:
    side_px = min(len(pixels), MOST_PX)
    small = (
        np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS))
        if side_px < len(pixels)
        else pixels
    )
    # An image element has no end tag, which is all that `tag` writes.
    image = tag("img", src=data_uri(small), alt=words, width=side_px, height=side_px, loading="lazy")
    return join([Markup(image.removesuffix("</img>"))])
