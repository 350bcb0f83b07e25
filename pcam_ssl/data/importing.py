"""Import of any source into a DATASET folder in one pass and constant memory: decode, measure, pack, and join slides on id. `open_source` and `packed` do so in memory, for a command that is given images."""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset, is_dataset, open_dataset
from pcam_ssl.data.decoding import default_workers, packed_in_order
from pcam_ssl.data.images import BadImage, decode
from pcam_ssl.data.sources import list_source
from pcam_ssl.data.sources.csv_table import known, read_csv, refuse_repeated_rows
from pcam_ssl.data.sources.listing import NAMED, Listing, name_first, places_in
from pcam_ssl.data.writer import DatasetWriter, refuse_existing
from pcam_ssl.errors import UserError
from pcam_ssl.terminal import progress, warn


def import_source(
    source: Path | str,
    target: Path | str,
    wsi: Path | str | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
    verify: bool = True,
    choose: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    wsi_pattern: str | None = None,
) -> Dataset:
    """Import a source into the new dataset `target` and return it. `wsi` is a csv `id,wsi`, or `wsi_pattern` a
    regular expression with a group `wsi` over the paths of images; `verify` checks published MD5s.

    `workers` processes decode and measure (1: this one; default: one per core, at most 8, and 1 for few patches). `choose` takes the records (`RECORD_COLUMNS`) and returns the rows to import,
    in their order and with their index; it may move patches to another split. Raises UserError with every problem of the source. With `skip_bad`
    bad images and unmatched ids are left out instead and counted in the manifest. A failed import leaves nothing behind.
    """
    refuse_existing(target)
    if wsi is not None and wsi_pattern is not None:
        raise UserError("--wsi and --wsi-pattern both name the slides; give one of them")
    found = _listed(source, wsi, skip_bad, verify, wsi_pattern)
    if choose is not None:
        found.keep(choose(found.records))
    _write(found, target, skip_bad, workers or default_workers(len(found.records)))
    return open_dataset(target)


def _listed(source: Path | str, wsi: Path | str | None, skip_bad: bool, verify: bool, wsi_pattern: str | None) -> Listing:
    found = list_source(source, verify, wsi_pattern)
    if found.problems and not skip_bad:
        raise UserError(*found.problems, "fix these, or add --skip-bad to leave them out")
    for problem in found.problems:
        warn(f"left out: {problem}")
    if wsi is not None:
        join_slides(found, wsi)
    check_slides(found)
    if found.records.empty:
        raise UserError(f"{found.source}: no patches with a row in the csv; nothing was written")
    return found


def _write(found: Listing, target: Path | str, skip_bad: bool, workers: int) -> None:
    with DatasetWriter(target, None, source=found.source, source_format=found.source_format, expected=len(found.records)) as writer:
        bad = _pack(found, writer, skip_bad, workers)
        if bad:
            found.notes["bad_images"] = {"count": len(bad), "first": bad[:NAMED]}
            warn(f"left out: {len(bad):,} bad images; the manifest names the first {min(NAMED, len(bad))}")
        writer.notes, writer.sample_submission = found.notes, found.sample_submission


def _pack(found: Listing, writer: DatasetWriter, skip_bad: bool, workers: int) -> list[str]:
    """Append all patches; returns a line for each bad image. Raises UserError for bad images unless `skip_bad`."""
    table, bad = found.records, []
    with progress("importing", len(table)) as advance:
        for packed in packed_in_order(found.chunks(writer.scratch), workers, writer.scratch):
            bad += [f"{table['place'].iloc[row]}: {reason}" for row, reason in packed.bad]
            if len(packed.rows) and (skip_bad or not bad):  # after the first bad image the others are checked, not written
                part = table.iloc[packed.rows]
                columns = {"ids": part["id"], "split": part["split"], "labels": part["label"], "wsi": part["wsi"], "x": part["x"]}
                columns = {name: values.to_numpy() if name == "ids" else values.array for name, values in columns.items()}
                writer.append(packed.pixels, **columns, y=part["y"].array, statistics=packed.statistics)
            advance(packed.read)
    if bad and (not skip_bad or len(bad) == len(table)):
        rest = [f"and {len(bad) - NAMED:,} more"] if len(bad) > NAMED else []
        fix = (
            "give undamaged 8-bit RGB images of one size"
            if len(bad) == len(table)
            else "fix them, or add --skip-bad to leave them out"
        )
        raise UserError(*bad[:NAMED], *rest, f"{found.source}: {len(bad):,} of {len(table):,} images are bad; {fix}")
    return bad


def join_slides(found: Listing, csv: Path | str) -> None:
    """Set the slides of a listing from a csv `id,wsi`. Ids without a patch are counted, named, and left out.

    Raises UserError where the csv is absent, lacks a column, gives an id two slides, or no id matches.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise UserError(f"{csv}: no such file; give --wsi a csv with the columns id,wsi")
    frame = read_csv(csv.read_bytes(), str(csv), ["id", "wsi"])
    refuse_repeated_rows(frame, "wsi", str(csv))
    table = found.records
    rows = places_in(table["id"], frame["id"])
    unmatched = sorted(frame["id"][places_in(frame["id"], table["id"]) < 0])
    if len(unmatched) == len(frame):
        example = f"it has {name_first(unmatched, 1)}, the source {name_first(table['id'], 1)}"
        raise UserError(f"{csv}: none of its {len(frame):,} ids is in {found.source} ({example}); give the csv of these patches")
    if unmatched:
        found.notes["slide_ids_without_patch"] = {"count": len(unmatched), "first": unmatched[:NAMED]}
        warn(f"{csv}: {len(unmatched):,} ids have no patch and are left out: {name_first(unmatched)}")
    table["wsi"] = known(frame["wsi"]).astype("str").array.take(rows, allow_fill=True)
    found.notes["slides_from"] = csv.name


def check_slides(found: Listing) -> None:
    """Raises UserError where only some labelled training patches have a slide, because the others could not be grouped."""
    table = found.records
    labelled = (table["split"] == "train") & table["label"].notna()
    without = labelled & table["wsi"].isna()
    if without.any() and (labelled & table["wsi"].notna()).any():
        counts = (
            f"{without.sum():,} of {labelled.sum():,} labelled training patches have no slide: {name_first(table['id'][without])}"
        )
        raise UserError(f"{found.source}: {counts}; complete the slide csv, or import without any slides")
    elsewhere = table["wsi"].isna() & ~labelled
    if elsewhere.any() and table["wsi"].notna().any():
        found.notes["patches_without_slide"] = int(elsewhere.sum())


@contextmanager
def open_source(source: Path | str, skip_bad: bool = False):
    """Yield the source as a Dataset; any source but a dataset is imported to a temporary folder. Raises the UserErrors of `import_source`."""
    if is_dataset(source):
        yield open_dataset(source)
        return
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as folder:
        yield import_source(source, Path(folder) / "patches", skip_bad=skip_bad)


@contextmanager
def packed(source: Any, scratch: Path) -> Iterator[tuple[Path, str]]:
    """The path of a source and its name; an array of patches, or a list of image files, is packed into a folder in `scratch` first."""
    if isinstance(source, (str, os.PathLike)):
        yield Path(source), os.fspath(source)
        return
    if isinstance(source, Sequence) and source and all(isinstance(each, (str, os.PathLike)) for each in source):
        ids, name, patches, problems = [os.fspath(each) for each in source], f"{len(source):,} files", [], []
        for file in ids:
            try:
                patches.append(decode(Path(file).read_bytes()))
            except BadImage as reason:
                problems.append(f"{file}: {reason}")
            except OSError as error:
                problems.append(f"{file}: cannot be read ({error.strerror}); name an image file")
        if problems:
            raise UserError(*problems)
        if len(sizes := {patch.shape for patch in patches}) > 1:
            raise UserError(f"predict: the files are of {len(sizes)} sizes; give patches of one size")
        pixels = np.stack(patches)
    else:
        pixels, name = np.asarray(source), "an array"
        ids = [str(number) for number in range(len(pixels))] if pixels.ndim else []
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (pixels.shape[1], pixels.shape[1], 3):
            raise UserError(f"predict: the patches are {pixels.dtype} {list(pixels.shape)}; give uint8 [N, H, H, 3], not scaled")
    if not len(pixels):
        raise UserError("predict: there are no patches; give one or more")
    with DatasetWriter(scratch / "patches", None, source=name, source_format="memory", expected=len(pixels)) as writer:
        writer.append(pixels, ids, "test")
    yield scratch / "patches", name
