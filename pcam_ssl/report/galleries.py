"""Sections of a report: galleries of wrong and uncertain patches, and maps of embeddings by label and by slide."""

from collections import Counter

import numpy as np
from PIL import Image

from pcam_ssl.explain.centre import centre_bounds, even_share
from pcam_ssl.explain.explanation import CLASSES
from pcam_ssl.explain.report import label_of, laid_over, percent
from pcam_ssl.render.charts import legend
from pcam_ssl.render.markup import Markup, absent, card, join, table, tag, three
from pcam_ssl.render.thumbnails import data_uri, shorten
from pcam_ssl.report.cases import Case, FoldMap, Pictures

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


TITLE = "Embedding map"
SIDE_PX, MARGIN_PX = 260, 8
SLIDES = 7
"""Slides that have a colour of their own; all others share grey."""


def map_card(pictures: Pictures) -> Markup:
    """Maps and, beneath them, the numbers taken in the whole space."""
    if pictures.no_maps:
        return absent(TITLE, pictures.no_maps)
    first = pictures.maps[0]
    notes = [
        "Each fold's network has a space of its own, so folds are not laid over one another. Shown are patches that the network never learned from:"
        " what it learned by heart would lie apart by itself.",
        "PCA: the two directions of greatest variance; most of the space is not in the picture, all of it is in the table."
        if first.method == "pca"
        else "UMAP: who is whose neighbour; distances and densities mean nothing.",
    ]
    if any(slide is not None for slide in first.slides):
        notes.append(f"On the right, a colour for each of the {SLIDES} slides with most patches, grey for the others.")
    return card(
        TITLE,
        tag("p", " ".join(notes), class_="note"),
        legend([("circle", "c2", "tumor"), ("circle", "c1", "normal")]),
        tag("div", [_pair(each) for each in pictures.maps], class_="maps"),
        table(
            [
                "fold",
                "AUROC",
                "patches",
                "slides",
                "same label",
                "by chance",
                "same slide",
                "by chance",
                "silh. label",
                "silh. slide",
            ],
            [_numbers(each) for each in pictures.maps],
        ),
        tag("p", _legend_of_numbers(first), class_="note"),
    )


def _legend_of_numbers(first: FoldMap) -> str:
    k = first.likeness["k"]
    return (
        f"Same label: of the {k} nearest patches of other slides, the share of a patch's own class; same slide: of the {k} nearest of all, the share of its"
        " own slide, far above chance where the network sees stain or scanner, or where slides hold one class. Silhouette: above 0, a patch is nearer to its own group than to the next."
    )


def _numbers(each: FoldMap) -> list:
    found = each.likeness
    shares = [three(found[kind][part]) for kind in ("same_label", "same_slide") for part in ("value", "by_chance")]
    slides = len(set(each.slides) - {None})
    counts = f"{len(each.labels):,}" if len(each.labels) == each.of else f"{len(each.labels):,} of {each.of:,}"
    silhouettes = [three(found[f"silhouette_{by}"]) for by in ("label", "slide")]
    return [each.fold, three(each.auroc), counts, f"{slides:,}" if slides else "unknown", *shares, *silhouettes]


def _pair(each: FoldMap) -> Markup:
    by_slide = any(slide is not None for slide in each.slides)
    title = f"Fold {each.fold}" + ("" if each.auroc is None else f", AUROC {each.auroc:.3f}")
    head = f"{title}: by label, and by slide" if by_slide else f"{title}: by label"
    maps = [_map(each, np.where(each.labels == 1, 2, 1), f"{title}: {len(each.labels):,} patches coloured by label; numbers below")]
    if by_slide:
        maps.append(_map(each, _slide_colours(each.slides), f"{title}: the same patches coloured by slide; numbers below"))
    return tag("figure", tag("figcaption", head, aria_hidden="true"), tag("div", maps, class_="two"))


def _slide_colours(slides: list[str | None]) -> np.ndarray:
    """Colour numbers 1 to `SLIDES` for the slides with the most patches, else 0."""
    counts = Counter(slide for slide in slides if slide is not None)
    largest = sorted(counts, key=lambda slide: (-counts[slide], slide))[:SLIDES]
    numbers = {slide: number for number, slide in enumerate(largest, 1)}
    return np.array([numbers.get(slide, 0) for slide in slides])


def _map(each: FoldMap, colours: np.ndarray, alt: str) -> Markup:
    """Dots of one colour are one path of strokes without length, so that a thousand take 10 kB."""
    low, high = each.places.min(axis=0), each.places.max(axis=0)
    span = max(float((high - low).max()), 1e-9)
    # One scale for both axes: a map that stretches one of them shows distances that are not there.
    height_px = round(2 * MARGIN_PX + max((high - low)[1] / span, 0.3) * (SIDE_PX - 2 * MARGIN_PX))
    centred = (each.places - (low + high) / 2) / span * [1, -1] * (SIDE_PX - 2 * MARGIN_PX)
    drawn = np.rint(np.array([SIDE_PX, height_px]) / 2 + centred).astype(int)
    paths = []
    for colour in np.unique(colours):
        dots = "".join(f"M{x} {y}h0" for x, y in drawn[colours == colour])
        paths.append(tag("path", d=dots, class_=f"points c{colour}"))
    return tag("svg", paths, viewBox=f"0 0 {SIDE_PX} {height_px}", role="img", aria_label=alt, class_="map")
