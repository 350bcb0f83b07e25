"""`pcam-ssl data tile`: plan every slide, cut what is not cut yet, and write the dataset behind the cutting."""

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
from pcam_ssl.data.images import measure, without_threads
from pcam_ssl.data.writer import DatasetWriter, check_space, refuse_existing
from pcam_ssl.errors import UserError
from pcam_ssl.slides.annotation_files import find_annotations
from pcam_ssl.slides.parts import Parts, Region
from pcam_ssl.slides.plan import Cutting, Plan, plan_slide
from pcam_ssl.slides.reader import open_slide, slide_name
from pcam_ssl.tables import write_table
from pcam_ssl.terminal import progress

FOLDER, TILES = "slides", "tiles.parquet"
WAITING = 1
"""Tables whose pixels may wait to be written to the dataset. With more, readers on busy cores run far ahead, and the end is left to one thread."""
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
        _write(slides, plans, target, cutting, classes, files, parts, workers)
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


def _write(slides: list[Path], plans: list[Plan], target: Path, cutting: Cutting, classes, files: dict, parts: Parts, workers: int):
    """Cut the planned slides into `parts`, and write the dataset from there, in order, while the cutting goes on."""
    planned = {plan.slide.path for plan in plans}
    to_come = sum(len(plan.tiles) for plan in plans)
    there = sum(parts.told(slide)["tiles"] for slide in slides if slide not in planned)
    # Once as parts, once as the dataset.
    check_space(parts.folder, (2 * to_come + there) * 3 * cutting.size_px**2)
    source = f"{slides[0]}" + (f" and {len(slides) - 1} more slides" if len(slides) > 1 else "")
    sides = []
    with DatasetWriter(target, cutting.size_px, source=source, source_format="whole slides", expected=to_come + there) as writer:
        folder = writer.scratch / FOLDER
        folder.mkdir()
        with without_threads(), progress("cutting", to_come + there) as advance, _Behind() as behind:
            by_slide = groupby(_regions(plans, workers, advance), key=lambda region: region.plan)
            for slide in slides:
                plan, regions = next(by_slide) if slide in planned else (None, ())
                side = []
                for table in parts.write(plan, regions, files.get(slide_name(slide))) if plan else parts.tables(slide):
                    table = table.assign(id=_ids(slide, table))
                    behind.do(_append, writer, parts, slide, table)
                    side.append(table[["id", "tissue_share", "tumor_share"]])
                    if plan is None:
                        advance(len(table))
                if plan:
                    plan.slide.close()
                told = parts.told(slide)
                sides.append(pd.concat(side, ignore_index=True).assign(level=told["level"], mpp=told["tile"]["mpp"]))
                parts.copy_pictures(slide, folder)
        columns = ["id", "level", "mpp", "tissue_share", "tumor_share"]
        write_table(folder / TILES, pd.concat(sides, ignore_index=True)[columns])
        without = sum(slide_name(slide) not in files for slide in slides)
        writer.notes = {"tiling": {**asdict(cutting), "classes": dict(classes)}, "slides_without_annotations": without}


def _append(writer: DatasetWriter, parts: Parts, slide: Path, table: pd.DataFrame) -> None:
    for rows, pixels in parts.pixels(slide, table):
        labelled = rows["tumor_share"].notna()
        labels = (rows["tumor_share"] > 0).astype("Int8").where(labelled).array
        statistics = {column: rows[column].to_numpy() for column in STATISTICS}
        split = np.where(labelled, "train", "test")
        with parts.room():
            writer.append(pixels, rows["id"].array, split, labels, slide_name(slide), rows["x"].array, rows["y"].array, statistics)


def _ids(slide: Path, table: pd.DataFrame) -> list[str]:
    name = slide_name(slide)
    return [f"{name}_x{x}_y{y}" for x, y in zip(table["x"].tolist(), table["y"].tolist(), strict=True)]


class _Behind:
    """Context manager of one thread that does one job after the other. What a job raises, a later `do` or the end of the block raises."""

    def __enter__(self) -> "_Behind":
        self._pool, self._jobs = ThreadPoolExecutor(1), deque()
        return self

    def do(self, work, *arguments) -> None:
        while self._jobs and (self._jobs[0].done() or len(self._jobs) > WAITING):
            self._jobs.popleft().result()
        self._jobs.append(self._pool.submit(work, *arguments))

    def __exit__(self, kind, error, trace) -> None:
        self._pool.shutdown(cancel_futures=error is not None)
        for job in self._jobs if error is None else ():
            job.result()


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
