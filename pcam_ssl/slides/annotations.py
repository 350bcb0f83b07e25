"""Tumor areas from annotations, and how much of the centre of a tile is tumor."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pcam_ssl.errors import UserError
from pcam_ssl.slides.annotation_files import Outline, read_outlines
from pcam_ssl.slides.reader import Slide
from pcam_ssl.terminal import warn

CLASSES = {
    **dict.fromkeys(("tumor", "tumour", "carcinoma", "metastasis", "metastases", "_0", "_1"), 1),
    **dict.fromkeys(("normal", "exclusion", "_2"), 0),
}
"""Labels of known classes, by their names in small letters. `_0`, `_1` and `_2` are the groups of Camelyon16."""
BEYOND = 0.01
"""How far an outline may leave the slide, as a share of the slide's edge: hands slip, and viewers differ by some px."""


def parse_classes(text: str) -> dict[str, int]:
    """`Tumor=1,Stroma=0` as labels by name. Raises UserError for anything else."""
    classes = {}
    for part in text.split(","):
        name, equals, label = (each.strip() for each in part.rpartition("="))
        if not equals or not name or label not in ("0", "1"):
            raise UserError(f"--classes {text}: {part.strip() or 'an empty part'} is not NAME=0 or NAME=1; write Tumor=1,Stroma=0")
        classes[name] = int(label)
    return classes


def tumor_area(file: Path, slide: Slide, classes: Mapping[str, int]):
    """The tumor of a slide as a shapely geometry in px at level 0; empty where the file holds none.

    Where outlines overlap the smaller lies on top, so that stroma drawn inside a tumor is cut out of it. Outlines that cross themselves
    are repaired, with a warning. Raises UserError where the file is damaged, holds unknown classes, or leaves the slide.
    """
    import shapely

    outlines, others = read_outlines(file, slide)
    if others:
        warn(f"{file}: {others:,} points and lines have no area and are left out")
    labels = _labels(file, outlines, classes)
    _check_inside(file, slide, outlines)
    shapes = [shapely.Polygon(each.shell, each.holes) for each in outlines]
    crossing = [number for number, each in enumerate(shapes) if not shapely.is_valid(each)]
    if crossing:
        warn(f"{file}: {len(crossing):,} outlines cross themselves; the areas they enclose are taken")
    for number in crossing:
        shapes[number] = shapely.make_valid(shapes[number], method="structure", keep_collapsed=False)
    tumor = shapely.Polygon()
    order = sorted(range(len(shapes)), key=lambda number: (-shapes[number].area, number))
    while order:
        # Neighbours in the order with one label are painted at once: one by one takes minutes for thousands of outlines.
        label = labels[order[0]]
        count = next((place for place, number in enumerate(order) if labels[number] != label), len(order))
        painted = shapely.union_all([shapes[number] for number in order[:count]])
        tumor = tumor.union(painted) if label else tumor.difference(painted)
        order = order[count:]
    return tumor


def share_within(area, left: np.ndarray, top: np.ndarray, edge: float) -> np.ndarray:
    """Share [N] of an area in squares with corners `left`, `top` [N] and this edge, in px at level 0."""
    import shapely

    squares = shapely.box(left, top, left + edge, top + edge)
    shares = np.zeros(len(squares))
    # Only squares on an outline are cut with it, which takes long for outlines of many points.
    tree = shapely.STRtree(squares)
    shares[tree.query(area, predicate="contains")] = 1
    cut = np.setdiff1d(tree.query(area, predicate="intersects"), np.flatnonzero(shares))
    shares[cut] = shapely.area(shapely.intersection(squares[cut], area)) / edge**2
    return shares


def _labels(file: Path, outlines: list[Outline], classes: Mapping[str, int]) -> list[int]:
    known = CLASSES | {name.lower(): label for name, label in classes.items()}
    unknown = Counter(each.name for each in outlines if each.name.lower() not in known)
    if unknown:
        named = ", ".join(f"{name} ({count})" for name, count in sorted(unknown.items())[:10])
        example = ",".join(f"{name}=0" for name in sorted(unknown)[:2])
        raise UserError(f"{file}: unknown classes {named}; say which are tumor: --classes '{example}'")
    return [known[each.name.lower()] for each in outlines]


def _check_inside(file: Path, slide: Slide, outlines: list[Outline]) -> None:
    outside = 0
    for each in outlines:
        points = np.array(each.shell)
        spare = BEYOND * np.array([slide.width, slide.height])
        outside += bool((points < -spare).any() or (points > spare * (1 + 1 / BEYOND)).any())
    if outside:
        size = f"{slide.width:,} x {slide.height:,} px"
        raise UserError(
            f"{file}: {outside:,} of {len(outlines):,} outlines lie outside {slide.path.name} ({size}); give the annotations of this slide"
        )
