"""`pcam-ssl data tile`: plan every slide, cut what is not cut yet, then write the dataset."""

import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import groupby, islice
from pathlib import Path

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset, open_dataset
from pcam_ssl.data.images import measure
from pcam_ssl.data.writer import DatasetWriter, check_space, refuse_existing
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json
from pcam_ssl.slides.annotation_files import find_annotations
from pcam_ssl.slides.parts import Parts, Region
from pcam_ssl.slides.plan import Cutting, Plan, plan_slide
from pcam_ssl.slides.reader import open_slide, slide_name
from pcam_ssl.tables import write_table
from pcam_ssl.terminal import progress

FOLDER, TILES = "slides", "tiles.parquet"
STATISTICS = ("brightness", "stain_h", "stain_e", "od_r", "od_g", "od_b", "pixel_hash", "view_hash")


def tile_slides(
    slides: list[Path],
    target: Path,
    cutting: Cutting,
    annotations: Path | None = None,
    classes: Mapping[str, int] | None = None,
    workers: int | None = None,
) -> Dataset:
    """Cut slides into the new dataset `target` and return it. Patches are in the order of the slides, each from its top by rows.

    A slide with a file in `annotations` is labelled and goes to split train; others are unlabelled, split test. All slides are examined
    before one is cut, and every problem found is raised as one UserError. Slides that are cut to the end are kept in `DATASET.part`, and
    the same command does not read them again.
    """
    refuse_existing(target)
    cutting.check()
    classes = _checked(classes or {})
    if classes and annotations is None:
        raise UserError("--classes: are those of annotations; add --annotations, or leave --classes out")
    _refuse_repeated(slides)
    files = {} if annotations is None else find_annotations(annotations, slides)
    workers = workers or min(os.cpu_count() or 1, 8)
    for slide in slides:
        if not slide.exists():
            raise UserError(f"{slide}: no such file; name a whole slide")
    with Parts(target.parent.resolve() / target.name, cutting, classes) as parts:
        open_slides = [slide for slide in slides if not parts.holds(slide, files.get(slide_name(slide)))]
        plans = _planned(open_slides, cutting, files, classes, parts, workers)
        _cut(plans, parts, files, workers)
        _assemble(slides, target, cutting, classes, parts)
    return open_dataset(target)


def _checked(classes: Mapping[str, int]) -> Mapping[str, int]:
    wrong = [f"{name}={label}" for name, label in classes.items() if label not in (0, 1)]
    if wrong:
        raise UserError(f"--classes {', '.join(wrong)}: a label is 1 (tumor) or 0; write Tumor=1,Stroma=0")
    return classes


def _refuse_repeated(slides: list[Path]) -> None:
    if not slides:
        raise UserError("data tile: no slides; name one or more")
    for name, count in Counter(map(slide_name, slides)).items():
        if count > 1:
            named = ", ".join(str(each) for each in slides if slide_name(each) == name)
            raise UserError(f"{name}: {count} slides have this name ({named}); rename one, because patches carry it")


def _planned(slides: list[Path], cutting: Cutting, files: dict, classes, parts: Parts, workers: int) -> list[Plan]:
    """The plans of the slides, several at a time. Raises UserError with the problems of all."""

    def plan(path: Path) -> Plan | UserError:
        try:
            slide = open_slide(path)
            try:
                made, thumbnail, mask = plan_slide(slide, cutting, files.get(slide.name), classes)
            finally:
                slide.close()
            parts.draw(made, thumbnail, mask)
            return made
        except UserError as problem:
            return problem

    with progress("finding tissue", len(slides), "slides") as advance, ThreadPoolExecutor(workers) as pool:
        found = []
        for each in pool.map(plan, slides):
            found.append(each)
            advance()
    problems = [line for each in found if isinstance(each, UserError) for line in each.problems]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return found


def _cut(plans: list[Plan], parts: Parts, files: dict, workers: int) -> None:
    total = sum(len(plan.tiles) for plan in plans)
    if total:
        # Once as parts, once as the dataset.
        check_space(parts.folder, 2 * total * 3 * plans[0].cutting.size_px ** 2)
    with progress("cutting", total) as advance:
        for plan, regions in groupby(_regions(plans, workers, advance), key=lambda region: region.plan):
            parts.write(plan, regions, files.get(plan.slide.name))
            plan.slide.close()


def _regions(plans: list[Plan], workers: int, advance) -> Iterator[Region]:
    """The regions of all slides in order, read by threads; only a few are in memory at a time."""

    def read(plan: Plan, rows: np.ndarray) -> Region:
        pixels = plan.read(rows)
        return Region(plan, rows, pixels, measure(pixels))

    def jobs():
        for plan in plans:
            opened = plan.reopened()
            yield from ((opened, rows) for rows in opened.regions())

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque = deque()
        todo = jobs()
        try:
            while True:
                waiting.extend(pool.submit(read, *job) for job in islice(todo, workers + 2 - len(waiting)))
                if not waiting:
                    return
                region = waiting.popleft().result()
                advance(len(region.rows))
                yield region
        finally:
            for future in waiting:
                future.cancel()


def _assemble(slides: list[Path], target: Path, cutting: Cutting, classes, parts: Parts) -> None:
    told = [read_json(parts.folder / f"{slide_name(slide)}.json", {"tiles": int}) for slide in slides]
    total = sum(each["tiles"] for each in told)
    source = f"{slides[0]}" + (f" and {len(slides) - 1} more slides" if len(slides) > 1 else "")
    sides = []
    with (
        DatasetWriter(target, cutting.size_px, source=source, source_format="whole slides", expected=total) as writer,
        progress("writing", total) as advance,
    ):
        folder = writer.scratch / FOLDER
        folder.mkdir()
        for slide, each in zip(slides, told, strict=True):
            name = slide_name(slide)
            for table, pixels in parts.read(slide, cutting.size_px):
                ids = [f"{name}_x{x}_y{y}" for x, y in zip(table["x"], table["y"], strict=True)]
                labelled = table["tumor_share"].notna()
                labels = (table["tumor_share"] > 0).astype("Int8").where(labelled).array
                statistics = {column: table[column].to_numpy() for column in STATISTICS}
                split = np.where(labelled, "train", "test")
                writer.append(pixels, ids, split, labels, name, table["x"].array, table["y"].array, statistics)
                side = table[["tissue_share", "tumor_share"]].assign(id=ids, level=each["level"], mpp=each["tile"]["mpp"])
                sides.append(side[["id", "level", "mpp", "tissue_share", "tumor_share"]])
                advance(len(table))
            parts.copy_pictures(slide, folder)
        write_table(folder / TILES, pd.concat(sides, ignore_index=True))
        without = [slide_name(slide) for slide, each in zip(slides, told, strict=True) if each["annotations"] is None]
        writer.notes = {"tiling": {**asdict(cutting), "classes": dict(classes)}, "slides_without_annotations": len(without)}
