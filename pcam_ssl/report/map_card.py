"""Embedding maps of a report: each fold's scored patches in that fold's own space, by label and by slide, and what they lie together by. No torch."""

from collections import Counter

import numpy as np

from pcam_ssl.render.charts import legend
from pcam_ssl.render.markup import Markup, absent, card, table, tag, three
from pcam_ssl.report.cases import FoldMap, Pictures

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
