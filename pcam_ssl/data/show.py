"""Summary of a dataset as numbers, as text, and as a contact sheet of patches."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.errors import UserError
from pcam_ssl.files import atomic_write

NAMES = {1: "tumor", 0: "normal", None: "unlabelled"}
SLIDES_LISTED = 20


def summarise(dataset: Dataset) -> dict:
    """Counts by split and label, and for each slide: patches, tumor share of the labelled patches, mean stain (optical density units)."""
    manifest = dataset.manifest
    keys = ("source", "source_format", "size_px", "counts", "n_slides", "digest", "created", "notes")
    return {
        "dataset": str(dataset.path),
        "patches": len(dataset),
        **{key: manifest[key] for key in keys},
        "without_slide": int(dataset.patches["wsi"].isna().sum()),
        "slides": _slides(dataset.patches).to_dict("records"),
    }


def _slides(patches: pd.DataFrame) -> pd.DataFrame:
    by_slide = patches.assign(label=patches["label"].astype("float64")).groupby("wsi")
    table = by_slide.agg(
        split=("split", lambda values: "+".join(sorted(set(values)))),
        patches=("id", "size"),
        tumor_share=("label", "mean"),
        brightness=("brightness", "mean"),
        stain_h=("stain_h", "mean"),
        stain_e=("stain_e", "mean"),
    )
    table = table.round({"tumor_share": 4, "brightness": 4, "stain_h": 4, "stain_e": 4}).astype(object)
    return table.where(table.notna(), None).sort_values("patches", ascending=False, kind="stable").reset_index()


def as_text(summary: dict) -> str:
    """The summary as text: lines on size and source, then the tables."""
    lines = [
        f"{summary['dataset']}: {summary['patches']:,} patches of {summary['size_px']} px, {summary['n_slides']:,} slides",
        f"from {summary['source']} ({summary['source_format']}), {summary['created'][:10]}, digest {summary['digest'][:12]}",
        "",
        f"{'split':<8}{'tumor':>10}{'normal':>10}{'unlabelled':>12}",
    ]
    lines += [f"{split:<8}{c['tumor']:>10,}{c['normal']:>10,}{c['unlabelled']:>12,}" for split, c in summary["counts"].items()]
    for key, note in summary["notes"].items():
        if isinstance(note, dict) and "count" in note:
            lines.append(
                f"{key.replace('_', ' ')}: {note['count']:,} ({', '.join(note['first'][:3])}{', ...' if note['count'] > 3 else ''})"
            )
    return "\n".join([*lines, "", *_slide_lines(summary)])


def _slide_lines(summary: dict) -> list[str]:
    slides = summary["slides"]
    if not slides:
        return ["no slide ids: folds need proxy groups; give a csv id,wsi at import with --wsi"]
    width = max(len("slide"), *(len(slide["wsi"]) for slide in slides[:SLIDES_LISTED])) + 2
    lines = [f"{'slide':<{width}}{'split':<12}{'patches':>8}{'tumor':>8}{'H':>7}{'E':>7}   (H, E: mean hematoxylin and eosin)"]
    for slide in slides[:SLIDES_LISTED]:
        share = "" if slide["tumor_share"] is None else f"{slide['tumor_share']:.0%}"
        stain = f"{slide['stain_h']:>7.2f}{slide['stain_e']:>7.2f}"
        lines.append(f"{slide['wsi']:<{width}}{slide['split']:<12}{slide['patches']:>8,}{share:>8}{stain}")
    if len(slides) > SLIDES_LISTED:
        lines.append(f"and {len(slides) - SLIDES_LISTED:,} smaller slides (all with --json)")
    if summary["without_slide"]:
        lines.append(f"{summary['without_slide']:,} patches without slide")
    return lines


def contact_sheet(dataset: Dataset, path: Path | str, slides: int = 4, columns: int = 10, seed: int = 0) -> None:
    """Write a PNG with a section per label and a row of random patches (by `seed`) for each of its largest slides.

    Raises UserError where the name does not end in .png or the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise UserError(f"{path}: a contact sheet is a PNG; give a name that ends in .png")
    rows = _choose(dataset.patches, slides, columns, np.random.default_rng(seed))
    tile, gap, head, left = max(64, min(dataset.size_px, 128)), 4, 34, 230
    height = sum((head if row["heading"] else 0) + tile + gap for row in rows) + 44
    sheet = Image.new("RGB", (left + columns * (tile + gap) + 10, height), "white")
    draw, top = ImageDraw.Draw(sheet), 44
    title = f"{dataset.name}: {len(dataset):,} patches of {dataset.size_px} px, {dataset.manifest['n_slides']:,} slides"
    draw.text((10, 12), title, "black", ImageFont.load_default(18))
    for row in rows:
        if row["heading"]:
            draw.text((10, top + 10), row["heading"], "black", ImageFont.load_default(16))
            top += head
        draw.multiline_text((10, top + tile // 2 - 16), row["caption"], (70, 70, 70), ImageFont.load_default(13), spacing=4)
        for place, index in enumerate(row["rows"]):
            patch = Image.fromarray(dataset.pixels[index]).resize((tile, tile), Image.Resampling.LANCZOS)
            sheet.paste(patch, (left + place * (tile + gap), top))
        top += tile + gap
    try:
        with atomic_write(path) as temporary:
            sheet.save(temporary, format="PNG")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def _choose(patches: pd.DataFrame, slides: int, columns: int, rng: np.random.Generator) -> list[dict]:
    """The rows of the sheet with captions: patches of one label and one slide (or split, where slides are unknown)."""
    chosen = []
    for label, name in NAMES.items():
        part = patches[patches["label"].isna() if label is None else (patches["label"] == label).fillna(False)]
        groups = part["wsi"].fillna("no slide, " + part["split"])
        sizes = groups.value_counts().head(slides)
        for place, (group, size) in enumerate(sizes.items()):
            members = part["row"][groups == group].to_numpy()
            shown = rng.choice(members, min(columns, size), replace=False)
            caption = f"{_shorten(group)}\n{size:,} {name}"
            heading = f"{name}: {len(part):,} patches" if place == 0 else None
            chosen.append({"heading": heading, "caption": caption, "rows": np.sort(shown)})
    return chosen


def _shorten(text: str, length: int = 30) -> str:
    return text if len(text) <= length else f"{text[: length // 2 - 1]}…{text[-length // 2 :]}"
