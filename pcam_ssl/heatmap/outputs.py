"""The files of one slide's heat map: picture, page, detections for QuPath, and the map as arrays."""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.files import atomic_write, write_json, write_text
from pcam_ssl.heatmap.cells import CALLED, NORMAL, TUMOR, Grid, Numbers, coloured
from pcam_ssl.render.document import Facts, Picture
from pcam_ssl.render.format import three
from pcam_ssl.render.html import encoded, scripted_page
from pcam_ssl.slides.space import SlideSpace

OVERLAY, PAGE, DETECTIONS, MAP, MAP_FACTS, OME = (
    *("overlay.png", "heatmap.html", "detections.geojson", "map.npy", "map.json", "map.ome.tif"),
)
SUMMARY = "summary.json"
FILES = (OVERLAY, PAGE, DETECTIONS, MAP, MAP_FACTS, OME, SUMMARY)
OPACITY = 0.5
OVERLAY_LEAST_PX, OVERLAY_PX, THUMBNAIL_PX = 800, 2048, 1200
"""The longer side of the overlay at least (where that needs no half pixels) and at most, and of the slide on the page at most."""
PICTURES, PICTURE_PX, LARGEST_PX = 1500, 48, 96
"""The page holds pixels for so many patches of this edge; fewer patches are larger, up to `LARGEST_PX`."""
PLACES = 50_000
"""The page knows the places of so many patches, the most suspicious ones."""
QUALITY = 78
"""JPEG: a patch of 48 px takes about 1.5 kB."""
PAGE_BYTES = 5_000_000


@dataclass(frozen=True)
class Drawn:
    """One slide to be written: its patches (columns of the dataset and `prob`), their pixels uint8 `[n, H, H, 3]` by `pixels(rows)`, its map."""

    wsi: str
    run: str
    words: str
    patches: pd.DataFrame
    pixels: Any
    space: SlideSpace
    grid: Grid
    prob_map: np.ndarray
    numbers: Numbers


def write_outputs(folder: Path, slide: Drawn) -> None:
    """Write all files of a slide into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    thumbnail = None if slide.space.thumbnail is None else _thumbnail(slide.space.thumbnail)
    write_bytes(folder / OVERLAY, encoded(overlay(slide, thumbnail), "png"))
    write_text(folder / DETECTIONS, json.dumps(detections(slide), separators=(",", ":"), allow_nan=False))
    with atomic_write(folder / MAP) as temporary, open(temporary, "wb") as file:
        np.save(file, slide.prob_map.astype(np.float32))
    write_json(folder / MAP_FACTS, map_facts(slide))
    if find_spec("tifffile") is not None:
        _write_ome(folder / OME, slide)
    write_text(folder / PAGE, heat_page(slide, thumbnail))


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def map_facts(slide: Drawn) -> dict[str, Any]:
    """What a reader of map.npy needs: cell (row, column) covers `cell_px` px from `origin_px` + (column, row) * `cell_px` on."""
    grid, space = slide.grid, slide.space
    return {
        "slide": slide.wsi,
        "run": slide.run,
        "prob": slide.words,
        "shape": list(slide.prob_map.shape),
        "origin_px": [grid.left, grid.top],
        "cell_px": grid.cell_px,
        "tile_px": grid.tile_px,
        "px": "level 0 of the slide" if space.tiled else "as x and y in the dataset",
        "mpp": space.mpp,
        "cell_um": None if space.mpp is None else grid.cell_px * space.mpp,
        "empty": "NaN: no patch",
    }


def detections(slide: Drawn) -> dict[str, Any]:
    """Patches as QuPath's detections: GeoJSON with a square, a class and the measurement `prob tumor` each.

    Coordinates count from the corner of the scanned area, as QuPath's do.
    """
    edge, (left, top) = slide.grid.tile_px, slide.space.offset
    classes = [{"name": "Normal", "color": list(NORMAL)}, {"name": "Tumor", "color": list(TUMOR)}]
    features = []
    for x, y, prob in zip(slide.patches.x.tolist(), slide.patches.y.tolist(), slide.patches.prob.tolist(), strict=True):
        x0, y0, x1, y1 = (round(value, 2) for value in (x - left, y - top, x - left + edge, y - top + edge))
        features.append(
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [[[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]]},
                "properties": {
                    "objectType": "detection",
                    "classification": classes[prob >= CALLED],
                    "measurements": {"prob tumor": round(prob, 6)},
                },
            }
        )
    return {"type": "FeatureCollection", "features": features}


def overlay(slide: Drawn, thumbnail: np.ndarray | None) -> np.ndarray:
    """The map over the thumbnail, half transparent, uint8 `[H, W, 3]`; the map alone where there is none."""
    cells = coloured(slide.prob_map)
    if thumbnail is None:
        side = max(1, OVERLAY_LEAST_PX // max(cells.shape[:2]))
        return cells.repeat(side, axis=0).repeat(side, axis=1)
    larger = max(1, OVERLAY_LEAST_PX // max(thumbnail.shape[:2]))
    pixels = shrunk(thumbnail, OVERLAY_PX).repeat(larger, axis=0).repeat(larger, axis=1)
    scale = slide.space.thumbnail_px * thumbnail.shape[1] / pixels.shape[1]
    # The cell under the centre of each pixel; -1 beyond the map.
    row, column = (
        np.floor(((np.arange(length) + 0.5) * scale - start) / slide.grid.cell_px).astype(int)
        for length, start in zip(pixels.shape[:2], (slide.grid.top, slide.grid.left), strict=True)
    )
    inside = np.ix_((row >= 0) & (row < cells.shape[0]), (column >= 0) & (column < cells.shape[1]))
    places = np.ix_(row[inside[0].ravel()], column[inside[1].ravel()])
    known = ~np.isnan(slide.prob_map[places])[..., None]
    below = pixels[inside]
    mixed = np.rint(OPACITY * cells[places] + (1 - OPACITY) * below).astype(np.uint8)
    pixels[inside] = np.where(known, mixed, below)
    return pixels


def heat_page(slide: Drawn, thumbnail: np.ndarray | None) -> str:
    """The page, below `PAGE_BYTES`: where it would be larger, it holds pictures of fewer patches."""
    ranked = slide.patches.sort_values("prob", ascending=False, kind="stable")
    count = min(PICTURES, len(ranked))
    while len((page := _page(slide, thumbnail, ranked, count)).encode()) >= PAGE_BYTES and count:
        count //= 2
    return page


def _page(slide: Drawn, thumbnail: np.ndarray | None, ranked: pd.DataFrame, count: int) -> str:
    grid, space = slide.grid, slide.space
    rows, columns = slide.prob_map.shape
    box = (grid.left, grid.top, columns * grid.cell_px, rows * grid.cell_px)
    # What the picture of the slide covers, px of the coordinates: left, top, width, height.
    extent = box if thumbnail is None else (0.0, 0.0, *(space.thumbnail_px * length for length in thumbnail.shape[1::-1]))
    part, listed = ranked.head(count), ranked.head(PLACES)
    sheet, side, across = _sheet(slide.pixels(part.row.to_numpy())) if count else (None, 0, 0)
    told = {
        "extent": extent,
        "tile": grid.tile_px,
        "step": grid.cell_px,
        "mpp": space.mpp,
        "unit": "px of level 0" if space.tiled else "px as in the dataset",
        "total": len(ranked),
        "x": listed.x.tolist(),
        "y": listed.y.tolist(),
        "prob": [round(prob, 3) for prob in listed.prob.tolist()],
        "label": [-1 if pd.isna(label) else int(label) for label in listed.label] if listed.label.notna().any() else [],
        "pictures": count,
        "side": side,
        "across": across,
    }
    cells = np.dstack([coloured(slide.prob_map), np.where(np.isnan(slide.prob_map), 0, 255).astype(np.uint8)])
    shares = [100 * (box[0] - extent[0]) / extent[2], 100 * (box[1] - extent[1]) / extent[3]]
    shares += [100 * box[2] / extent[2], 100 * box[3] / extent[3]]
    return scripted_page(
        "heatmap",
        title=f"Heat map of {slide.wsi}",
        slide=slide.wsi,
        words=slide.words,
        run=slide.run,
        thumbnail=None if thumbnail is None else _picture(shrunk(thumbnail, THUMBNAIL_PX), f"slide {slide.wsi}"),
        cells=_picture(cells, f"prob of tumor over slide {slide.wsi}", "png"),
        sheet=None if sheet is None else _picture(sheet, "", quality=QUALITY),
        style_of_cells="left:{:.4f}%;top:{:.4f}%;width:{:.4f}%;height:{:.4f}%".format(*shares),
        ratio=extent[2] / extent[3],
        opacity=100 if thumbnail is None else round(100 * OPACITY),
        numbers=Facts(number_lines(slide.numbers)),
        pictures=count,
        total=len(ranked),
        told=told,
    )


def number_lines(numbers: Numbers) -> list[tuple[str, str]]:
    """The numbers with their names, for a page."""
    lesion = f"{cells_words(numbers)} of the map"
    return [
        ("patches", f"{numbers.tiles:,}"),
        ("called tumor", f"{numbers.share:.1%} of the area (prob {CALLED:g} or more)"),
        ("largest lesion", lesion if numbers.lesion_mm2 is None else f"{numbers.lesion_mm2:.3g} mm² ({lesion})"),
        ("highest prob", three(numbers.maximum)),
        ("99th percentile", three(numbers.percentile_99)),
    ]


def cells_words(numbers: Numbers) -> str:
    """The largest lesion in cells."""
    return f"{numbers.lesion_cells:,} {'cell' if numbers.lesion_cells == 1 else 'cells'}"


def _picture(pixels: np.ndarray, alt: str, kind: str = "jpeg", **choices) -> Picture:
    return Picture(encoded(pixels, kind, **choices), kind, alt, pixels.shape[1], pixels.shape[0])


def _sheet(patches: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Patches uint8 `[n, H, H, 3]` side by side, uint8 `[h, w, 3]`; the edge of each there, and how many lie in a row."""
    from PIL import Image

    side = int(min(LARGEST_PX, patches.shape[1], PICTURE_PX * (PICTURES / len(patches)) ** 0.5))
    across = int(np.ceil(np.sqrt(len(patches))))
    sheet = np.zeros((-(-len(patches) // across) * side, across * side, 3), np.uint8)
    for place, patch in enumerate(patches):
        top, left = side * (place // across), side * (place % across)
        small = Image.fromarray(np.asarray(patch)).resize((side, side), Image.Resampling.LANCZOS)
        sheet[top : top + side, left : left + side] = np.asarray(small)
    return sheet, side, across


def shrunk(pixels: np.ndarray, most_px: int) -> np.ndarray:
    """A copy whose longer side is at most `most_px`."""
    from PIL import Image

    height, width = pixels.shape[:2]
    if (scale := most_px / max(height, width)) >= 1:
        return pixels.copy()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)).copy()


def _thumbnail(path: Path) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def _write_ome(path: Path, slide: Drawn) -> None:
    import tifffile

    size = {}
    if slide.space.mpp is not None:
        um = slide.grid.cell_px * slide.space.mpp
        size = {"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": um, "PhysicalSizeYUnit": "µm"}
    with atomic_write(path) as temporary:
        values = slide.prob_map.astype(np.float32)
        tifffile.imwrite(temporary, values, ome=True, compression="zlib", metadata={"axes": "YX", "Name": slide.wsi, **size})
