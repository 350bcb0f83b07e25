"""Sections of a report: galleries of errors and of uncertain patches, and embedding maps by label and by slide."""

from collections import Counter

import numpy as np

from pcam_ssl.explain.centre import centre_bounds, even_share
from pcam_ssl.explain.report import laid_over
from pcam_ssl.render.charts import dot_map
from pcam_ssl.render.document import Card, Gallery, Group, Legend, Line, Paragraph, Picture, Section, Table
from pcam_ssl.render.format import COLOURS, LABELS, percent, three
from pcam_ssl.render.html import picture, shorten
from pcam_ssl.report.cases import Case, FoldMap, Pictures
from pcam_ssl.tables import CLASSES

MOST_PX = 96
"""Larger patches are scaled down, so that two dozen patches with neighbours stay under a megabyte."""
WRONG_NOTE = (
    "On the wrong side of prob 0.5, the most confident first. Look for wrong labels, artefacts, and the stain of single slides."
)
UNSURE_NOTE = "Nearest to prob 0.5, right or wrong."


def wrong_section(pictures: Pictures) -> Section:
    """The most confident errors."""
    if pictures.no_cases:
        return Section(absent=pictures.no_cases)
    if not pictures.wrong:
        return Section(absent="no scored patch is on the wrong side of prob 0.5")
    return _gallery(f"{WRONG_NOTE} {_legend(pictures)}", pictures.wrong)


def unsure_section(pictures: Pictures) -> Section:
    """The least confident calls."""
    if pictures.no_cases:
        return Section(absent=pictures.no_cases)
    legend = "Shown as above." if pictures.wrong else _legend(pictures)
    return _gallery(f"{UNSURE_NOTE} {legend}", pictures.unsure)


def _legend(pictures: Pictures) -> str:
    """What the pictures of each patch show."""
    size_px = len(pictures.unsure[0].pixels)
    low, high = centre_bounds(size_px)
    sentences = [
        f"Outlined: the centre {high - low} px, which alone decide the label in PatchCamelyon. Orange: tumor; blue: normal."
    ]
    if pictures.no_explanations is None:
        even = percent(even_share(size_px))
        sentences.append(
            "Beside each patch: the evidence for the call (Grad-CAM of the fold that was not trained on the patch)"
            f" and the share of it in the centre ({even} if spread evenly)."
        )
    else:
        sentences.append(f"Explanations are not shown: {pictures.no_explanations}.")
    if pictures.asked:
        sentences.append(f"Below: the nearest labelled patches of other slides, {pictures.asked}.")
    return " ".join(sentences)


def _gallery(note: str, cases: list[Case]) -> Section:
    return Section(blocks=(Paragraph(note, "note"), Gallery([_card(case) for case in cases], "cases")))


def _card(case: Case) -> Card:
    slide = "slide unknown" if case.wsi is None else f"slide {shorten(case.wsi, 30)}"
    lines = [f"prob {case.prob:.3f}, fold {case.fold}", slide]
    pictures = [_outlined(case.pixels, f"patch {case.id}")]
    if case.explained is not None:
        summary = case.explained.summary
        pictures.append(_outlined(laid_over(case.pixels, summary.map), f"evidence for {CLASSES[summary.call]}"))
        lines.append("flat map" if summary.centre_share is None else f"{percent(summary.centre_share)} in the centre")
    call = Line(f"{LABELS[case.label]}, called {case.call}", strong=True)
    # The alt text of the first picture holds the full id.
    id = Line(shorten(case.id, 22), "id", title=case.id, silent=True)
    return Card(pictures, (call, *lines, id), near=_neighbours(case), colour=COLOURS[case.label])


def _neighbours(case: Case) -> list[Picture]:
    if not case.neighbours:
        return []
    shown = []
    for each, pixels in zip(case.neighbours, case.neighbour_pixels, strict=True):
        slide = f"slide {each['wsi']}" if each["wsi"] else "slide unknown"
        words = f"neighbour: {LABELS[each['label']]}, cosine {each['cosine']:.2f}, {slide}"
        shown.append(picture(pixels, words, most_px=MOST_PX, title=words, colour=COLOURS[each["label"]]))
    return shown


def _outlined(pixels: np.ndarray, words: str) -> Picture:
    low, high = centre_bounds(len(pixels))
    return picture(pixels, words, most_px=MOST_PX, centre_px=high - low)


SLIDES = 7
"""The number of slides with a colour of their own; all others are grey."""


def map_section(pictures: Pictures) -> Section:
    """Maps, and a table of numbers computed in all dimensions of the embedding."""
    if pictures.no_maps:
        return Section(absent=pictures.no_maps)
    first = pictures.maps[0]
    notes = [
        "Each fold's network has an embedding of its own, so each fold has its own map. The maps show patches that the fold scored;"
        " training patches are left out: they cluster by memorisation.",
        "PCA shows the two directions of greatest variance; the table uses all dimensions of the embedding."
        if first.method == "pca"
        else "UMAP shows which patches are neighbours; its distances and densities have no meaning.",
    ]
    if any(slide is not None for slide in first.slides):
        notes.append(f"On the right, the {SLIDES} slides with the most patches have a colour each; all others are grey.")
    return Section(
        blocks=(
            Paragraph(" ".join(notes), "note"),
            Legend([("circle", "c2", "tumor"), ("circle", "c1", "normal")]),
            Group([_pair(each) for each in pictures.maps], "maps"),
            Table(
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
            Paragraph(_legend_of_numbers(first), "note"),
        )
    )


def _legend_of_numbers(first: FoldMap) -> str:
    k = first.neighborhood["k"]
    return (
        f"Same label: share of a patch's {k} nearest patches of other slides that have its label. Same slide: share of its {k} nearest patches that are from its"
        " slide; it is far above chance where the network sees stain or scanner, or where slides hold one class. Silhouette: above 0, patches are nearer to their own group than to the next."
    )


def _numbers(each: FoldMap) -> list:
    found = each.neighborhood
    shares = [three(found[kind][part]) for kind in ("same_label", "same_slide") for part in ("value", "by_chance")]
    slides = len(set(each.slides) - {None})
    counts = f"{len(each.labels):,}" if len(each.labels) == each.of else f"{len(each.labels):,} of {each.of:,}"
    silhouettes = [three(found[f"silhouette_{by}"]) for by in ("label", "slide")]
    return [each.fold, three(each.auroc), counts, f"{slides:,}" if slides else "unknown", *shares, *silhouettes]


def _pair(each: FoldMap) -> Group:
    by_slide = any(slide is not None for slide in each.slides)
    title = f"Fold {each.fold}" + ("" if each.auroc is None else f", AUROC {each.auroc:.3f}")
    head = f"{title}: by label, and by slide" if by_slide else f"{title}: by label"
    maps = [
        dot_map(
            each.places, np.where(each.labels == 1, 2, 1), f"{title}: {len(each.labels):,} patches coloured by label; numbers below"
        )
    ]
    if by_slide:
        maps.append(
            dot_map(each.places, _slide_colours(each.slides), f"{title}: the same patches coloured by slide; numbers below")
        )
    return Group(maps, "two", caption=head)


def _slide_colours(slides: list[str | None]) -> np.ndarray:
    """Colour numbers 1 to `SLIDES` for the slides with the most patches, else 0."""
    counts = Counter(slide for slide in slides if slide is not None)
    largest = sorted(counts, key=lambda slide: (-counts[slide], slide))[:SLIDES]
    numbers = {slide: number for number, slide in enumerate(largest, 1)}
    return np.array([numbers.get(slide, 0) for slide in slides])
