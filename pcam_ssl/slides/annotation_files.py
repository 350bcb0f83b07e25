"""Outlines in annotation files: GeoJSON as QuPath exports it, XML as ASAP writes it (Camelyon16)."""

import json
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.slides.reader import Slide, slide_name

SUFFIXES = (".geojson", ".json", ".xml")
UNCLASSIFIED = "unclassified"


class Outline(NamedTuple):
    """A polygon of a class: its shell and its holes, each a list of three or more (x, y) in px at level 0."""

    name: str
    shell: list[tuple[float, float]]
    holes: list[list[tuple[float, float]]]


def find_annotations(place: Path, slides: list[Path]) -> dict[str, Path]:
    """The annotation file of each slide that has one, by the slide's name: `place` is a file, or a folder of files with the slides' stems.

    Raises UserError where `place` is absent, is the file of another slide, belongs to none, or a slide has two.
    """
    names = [slide_name(path) for path in slides]
    if place.is_file():
        if place.suffix.lower() not in SUFFIXES:
            raise UserError(
                f"--annotations {place}: not an annotation file; name a .geojson, .json or .xml file, or a folder of them"
            )
        if slide_name(place) not in names:
            raise UserError(f"--annotations {place}: is of no slide here ({names[0]}, ...); give it the stem of its slide")
        return {slide_name(place): place}
    if not place.is_dir():
        raise UserError(f"--annotations {place}: no such file or folder; name one with annotations")
    found: dict[str, Path] = {}
    for file in sorted(place.iterdir()):
        name = slide_name(file)
        if file.suffix.lower() in SUFFIXES and name in names:
            if name in found:
                raise UserError(f"--annotations {place}: {found[name].name} and {file.name} are of one slide; keep one of them")
            found[name] = file
    if not found:
        raise UserError(f"--annotations {place}: no file has the stem of a slide ({names[0]}, ...); name files as their slides")
    return found


def read_outlines(file: Path, slide: Slide) -> tuple[list[Outline], int]:
    """The outlines of a file, and how many points and lines it holds besides. Raises UserError where it is damaged."""
    try:
        outlines, others = _asap(file) if file.suffix.lower() == ".xml" else _geojson(file, slide)
        if not all(np.isfinite(ring).all() for each in outlines for ring in (each.shell, *each.holes)):
            # An outline with NaN has no area, and all of the slide would be called normal.
            raise ValueError("a coordinate is no finite number")
        return outlines, others
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, ElementTree.ParseError) as error:
        kind = "ASAP XML" if file.suffix.lower() == ".xml" else "GeoJSON"
        raise UserError(f"{file}: cannot be read as {kind} ({first_line(error)}); export the annotations again") from None


def _geojson(file: Path, slide: Slide) -> tuple[list[Outline], int]:
    # Editors of Windows write a byte order mark.
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    if isinstance(content, dict):
        content = content["features"] if content.get("type") == "FeatureCollection" else [content]
    # QuPath counts from the corner of the scanned area, where the slide says it; OpenSlide from that of the whole slide.
    left, top = slide.offset
    outlines, others = [], 0
    for feature in content:
        told = feature.get("properties") or {}
        name = (told.get("classification") or {}).get("name") or UNCLASSIFIED
        shape = feature["geometry"]
        polygons = {"Polygon": lambda each: [each], "MultiPolygon": list}.get(shape["type"])
        if polygons is None:
            others += 1
            continue
        for rings in polygons(shape["coordinates"]):
            shell, *holes = [[(float(x) + left, float(y) + top) for x, y, *_ in ring] for ring in rings]
            if len(shell) < 3:
                others += 1
                continue
            outlines.append(Outline(str(name), shell, [hole for hole in holes if len(hole) > 2]))
    return outlines, others


def _asap(file: Path) -> tuple[list[Outline], int]:
    root = ElementTree.fromstring(file.read_bytes())
    if root.tag != "ASAP_Annotations":
        raise ValueError(f"begins with {root.tag}")
    outlines, others = [], 0
    for annotation in root.iter("Annotation"):
        points = sorted(annotation.iter("Coordinate"), key=lambda each: int(float(each.get("Order"))))
        shell = [(float(each.get("X")), float(each.get("Y"))) for each in points]
        if len(shell) < 3:
            others += 1
            continue
        outlines.append(Outline(annotation.get("PartOfGroup") or UNCLASSIFIED, shell, []))
    return outlines, others
