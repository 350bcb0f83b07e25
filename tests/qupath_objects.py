"""GeoJSON read by the rules of QuPath, which cannot be run here, and refused where QuPath stops, skips, or makes something else.

The rules are those of its source as of 0.5, qupath-core, package qupath.lib.io: PathIO (files, collections), QuPathTypeAdapters (objects,
measurements), GsonTools (classes), ROITypeAdapters (geometry; rings are closed by JTS's rule).
"""

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from uuid import UUID

PLANE = {"c", "z", "t"}


@dataclass(frozen=True)
class PathObject:
    """What QuPath makes of a feature: its kind, the name and colour (RGB) of its class, its bounds (px), its measurements."""

    kind: str
    name: str
    color: tuple[int, int, int]
    bounds: tuple[float, float, float, float]
    measurements: dict[str, float]


def read_objects(path: Path) -> list[PathObject]:
    """The objects of a file. Raises ValueError where QuPath would not read it as it was meant."""
    require(path.name.lower().endswith((".geojson", ".json")), "QuPath tells GeoJSON by the suffix")
    content = path.read_bytes()
    # QuPath decodes by the charset of its machine.
    require(content.isascii(), "not ASCII")
    collection = json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
    require(isinstance(collection, dict) and collection.get("type") == "FeatureCollection", "no FeatureCollection")
    require(isinstance(collection.get("features"), list), "features are no array")
    identities = [feature["id"] for feature in collection["features"] if "id" in feature]
    require(len({UUID(each) for each in identities}) == len(identities), "an id occurs twice")
    return [_object(feature) for feature in collection["features"]]


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise ValueError(problem)


def _object(feature: dict) -> PathObject:
    require(feature.get("type") == "Feature", "no Feature")
    properties = feature.get("properties", {})
    require("objectType" in properties, "without objectType it becomes an annotation")
    require(properties["objectType"] in ("detection", "annotation", "tile", "cell"), "an unknown objectType becomes an annotation")
    name, color = _path_class(properties.get("classification"))
    measurements = properties.get("measurements", {})
    require(isinstance(measurements, dict), "measurements are an array, as before 0.4")
    for label, value in measurements.items():
        require(bool(label) and _is_number(value), f"measurement {label} is no number")
    return PathObject(properties["objectType"], name, color, _bounds(feature["geometry"]), measurements)


def _path_class(told) -> tuple[str, tuple[int, int, int]]:
    require(isinstance(told, dict) and {"name", "color"} <= set(told), "a class has name and color")
    require(not {"colorRGB", "parentClass"} & set(told), "read as a class of before 0.4")
    require(bool(told["name"].strip()) and ":" not in told["name"], "a colon divides a name into two classes")
    color = told["color"]
    require(len(color) == 3 and all(type(each) is int and 0 <= each <= 255 for each in color), "colours are three whole numbers")
    return told["name"], tuple(color)


def _bounds(geometry: dict) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of a polygon without holes."""
    require(geometry["type"] == "Polygon", "no Polygon")
    require(set(geometry.get("plane", {})) <= PLANE and not geometry.get("isEllipse"), "another plane, or an ellipse")
    (ring,) = geometry["coordinates"]
    require(all(len(point) == 2 and all(map(_is_number, point)) for point in ring), "a point is not two numbers")
    require(len(ring) >= 4 and ring[0] == ring[-1], "the ring is not closed")
    area = sum(x * next_y - next_x * y for (x, y), (next_x, next_y) in pairwise(ring)) / 2
    require(area != 0, "the ring is empty")
    x, y = zip(*ring, strict=True)
    return min(x), min(y), max(x), max(y)


def _is_number(value) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _refuse_constant(name: str):
    raise ValueError(f"{name} is no JSON")


def _without_repeats(pairs: list) -> dict:
    require(len({key for key, _ in pairs}) == len(pairs), "a key occurs twice")
    return dict(pairs)
