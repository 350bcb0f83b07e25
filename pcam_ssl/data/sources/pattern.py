"""Slides, coordinates and labels from the paths of images, by a regular expression: the user's, or that of a layout that is known."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from pcam_ssl.data.sources.csv_table import read_csv
from pcam_ssl.data.sources.folder import CLASSES, ids_of
from pcam_ssl.data.sources.listing import SPLITS, Listing, image_chunks, name_first, records, refuse_repeated
from pcam_ssl.data.sources.tree import Tree, image_names, read_whole
from pcam_ssl.errors import UserError, first_line, nearest

GROUPS = ("wsi", "x", "y", "label", "split")
MARKS = CLASSES | {"b": 0, "m": 1, "n": 0, "t": 1}
"""Names of classes, and their first letters as file names have them."""
TRIED = 20


@dataclass(frozen=True)
class Layout:
    """A published layout of files that is recognised by itself."""

    name: str
    pattern: str
    labels: str | None = None
    """Name of a csv that holds labels and splits, where the file names hold none."""


LAYOUTS = (
    Layout(
        "IDC (PATIENT/CLASS/PATIENT_idx5_xX_yY_classC.png)",
        r"(?P<wsi>\d+)_idx\d+_x(?P<x>\d+)_y(?P<y>\d+)_class(?P<label>[01])\.\w+$",
    ),
    Layout(
        "Camelyon17-WILDS (patches/patient_P_node_N/)",
        r"patch_(?P<wsi>patient_\d+_node_\d+)_x_(?P<x>\d+)_y_(?P<y>\d+)\.\w+$",
        "metadata.csv",
    ),
    Layout("BreakHis (SOB_B_A-PATIENT-MAGNIFICATION-N.png)", r"SOB_(?P<label>[BM])_[A-Z]+-(?P<wsi>\d+-\w+)-\d+-\d+\.\w+$"),
)
WILDS = {"0": "train", "3": "train", "4": "train", "1": "valid", "2": "test"}
"""Split of each centre (hospital) of Camelyon17-WILDS (Koh et al. 2021, arXiv:2012.07421), whose out-of-distribution splits these are."""


def known_layout(tree: Tree) -> Layout | None:
    """The known layout of a tree, None where it has none. The first images must have it, and the csv that belongs to it must be there."""
    images = image_names(tree)[:TRIED]
    for layout in LAYOUTS:
        found = re.compile(layout.pattern)
        if all(found.search(name) for name in images) and (layout.labels is None or _file(tree, layout.labels) is not None):
            return layout
    return None


def listing(tree: Tree, pattern: str, layout: Layout | None = None) -> Listing:
    """The Listing of the images whose path (below the source, with /) holds `pattern`; its groups are among `GROUPS`, and `wsi` is one.

    Classes may also come from folder names. Images that do not match are a problem that --skip-bad leaves out. Raises UserError where the pattern
    cannot be used or matches nothing, where pattern and folder give an image two labels, and where one place on a slide has two classes.
    """
    found = _compiled(pattern)
    images = image_names(tree)
    matched = [(name, match.groupdict()) for name in images if (match := found.search(name)) is not None]
    if not matched:
        raise UserError(f"--wsi-pattern {pattern}: matches none of {len(images):,} images in {tree.path}, such as {images[0]}")
    names = [name for name, _ in matched]
    table = pd.DataFrame([groups for _, groups in matched]).reindex(columns=list(GROUPS)).astype("str")
    _check_slides(table, names, pattern)
    columns = {name: _coordinates(table[name], names, pattern) for name in ("x", "y")}
    frame = records(
        ids_of(names),
        _splits(table.split, names, pattern),
        _labels(table.label, names, tree),
        wsi=table.wsi.array,
        **columns,
        place=names,
    )
    refuse_repeated(frame["id"], frame["place"], str(tree.path))
    if layout is not None and layout.labels is not None:
        frame = _with_metadata(frame, tree, layout.labels)
    _check_places(frame, str(tree.path))
    kind = "images by pattern" if layout is None else layout.name.partition(" ")[0]
    result = Listing(str(tree.path), kind, frame, image_chunks(tree.images, names), images=tree.images)
    result.mismatch("images_without_slide", set(images) - set(names), f"images do not match {pattern}")
    result.notes["slides_from"] = pattern
    return result


def _compiled(pattern: str) -> re.Pattern:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise UserError(f"--wsi-pattern {pattern}: not a regular expression ({first_line(error)})") from None
    unknown = [name for name in found.groupindex if name not in GROUPS]
    if unknown:
        raise UserError(
            f"--wsi-pattern {pattern}: has a group {unknown[0]}; name groups {', '.join(GROUPS)}.{nearest(unknown[0], GROUPS)}"
        )
    if "wsi" not in found.groupindex:
        raise UserError(f"--wsi-pattern {pattern}: has no group for the slide; write (?P<wsi>...) around its name")
    return found


def _check_slides(table: pd.DataFrame, names: list[str], pattern: str) -> None:
    empty = table.wsi.isna() | (table.wsi == "")
    if empty.any():
        raise UserError(f"--wsi-pattern {pattern}: the slide of {names[empty.argmax()]} is empty; let (?P<wsi>...) match its name")


def _coordinates(values: pd.Series, names: list[str], pattern: str) -> pd.array:
    numbers = pd.to_numeric(values, errors="coerce")
    wrong = values.notna() & (numbers.isna() | (numbers < 0) | (numbers >= 2**31) | (numbers != numbers.round()))
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(
            f"--wsi-pattern {pattern}: {values.name} of {names[first]} is {values[first]}; a coordinate is a whole number of px from 0"
        )
    return numbers.astype("Int32").array


def _splits(values: pd.Series, names: list[str], pattern: str) -> pd.array:
    """The split of each image: of the pattern, else the name of a folder, else train."""
    known = values.str.lower().map(SPLITS)
    wrong = values.notna() & known.isna()
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(f"--wsi-pattern {pattern}: split of {names[first]} is {values[first]}; splits are train, valid and test")
    folders = pd.Series([_from_folders(name, SPLITS) for name in names], dtype=object)
    return known.where(known.notna(), folders).fillna("train").array


def _labels(values: pd.Series, names: list[str], tree: Tree) -> pd.array:
    """The label of each image: of the pattern, else of the folder. Raises UserError where they differ, or a class is unknown."""
    by_name = values.str.lower().map(MARKS)
    wrong = values.notna() & by_name.isna()
    if wrong.any():
        first = int(wrong.argmax())
        raise UserError(
            f"{tree.path}: label of {names[first]} is {values[first]}; write 0 and 1, or a name such as normal and tumor"
        )
    by_folder = pd.Series([_from_folders(name, CLASSES) for name in names], dtype="float64")
    differ = by_name.notna() & by_folder.notna() & (by_name != by_folder)
    if differ.any():
        first = int(differ.argmax())
        raise UserError(
            f"{tree.path}: {differ.sum():,} images have two labels, first {names[first]}: {int(by_name[first])} by its name,"
            f" {int(by_folder[first])} by its folder; correct the pattern or the files"
        )
    return pd.array(by_name.where(by_name.notna(), by_folder), dtype="Int8")


def _from_folders(name: str, meanings: dict[str, int | str]) -> int | str | None:
    """What the nearest folder that has a meaning says."""
    parts = [part.lower().replace("-", "_").replace(" ", "_") for part in PurePosixPath(name).parts[:-1]]
    return next((meanings[part] for part in reversed(parts) if part in meanings), None)


def _check_places(frame: pd.DataFrame, source: str) -> None:
    """Raises UserError where images at one place of a slide have different labels."""
    placed = frame[frame.x.notna() & frame.y.notna() & frame.label.notna()]
    labels = placed.groupby(["wsi", "x", "y"], sort=False).label.transform("nunique")
    if (labels > 1).any():
        first = placed[labels > 1].iloc[0]
        same = placed.place[(placed.wsi == first.wsi) & (placed.x == first.x) & (placed.y == first.y)]
        raise UserError(
            f"{source}: slide {first.wsi} has both classes at x {first.x}, y {first.y} ({name_first(same)}); keep the right one of them"
        )


def _file(tree: Tree, name: str) -> str | None:
    return next((each for each in tree.names if PurePosixPath(each).name == name), None)


def _with_metadata(frame: pd.DataFrame, tree: Tree, name: str) -> pd.DataFrame:
    """Labels and splits of Camelyon17-WILDS from its metadata.csv, joined on patient, node and coordinates."""
    where = f"{tree.path}: {name}"
    rows = read_csv(read_whole(tree, _file(tree, name)), where, ["patient", "node", "x_coord", "y_coord", "tumor", "center"])
    slides = "patient_" + rows.patient.str.zfill(3) + "_node_" + rows.node
    keys = pd.Index(slides + " " + rows.x_coord + " " + rows.y_coord)
    if keys.has_duplicates:
        raise UserError(
            f"{where}: {keys.duplicated().sum():,} rows repeat a patch, first {keys[keys.duplicated()][0]}; get it again"
        )
    place = keys.get_indexer(frame.wsi.astype(str) + " " + frame.x.astype(str) + " " + frame.y.astype(str))
    if (place < 0).any():
        absent = frame.place[place < 0]
        raise UserError(f"{where}: has no row of {len(absent):,} images, first {absent.iloc[0]}; get it again")
    rows = rows.iloc[place].reset_index(drop=True)
    wrong = ~rows.tumor.isin(["0", "1"]) | ~rows.center.isin(WILDS)
    if wrong.any():
        raise UserError(f"{where}: tumor is not 0 or 1, or center not 0 to 4, in {wrong.sum():,} rows; get it again")
    return frame.assign(label=rows.tumor.astype("Int8"), split=rows.center.map(WILDS).astype("str"))
