"""Image folders: split/class/*.png, class/*.png, images with a csv, images alone, or one image."""

from functools import partial
from os.path import commonpath
from pathlib import Path, PurePosixPath

import pandas as pd

from pcam_ssl.data.image_files import FolderImages
from pcam_ssl.data.sources.csv_table import known, parse_labels, parse_splits, read_csv, refuse_repeated_rows
from pcam_ssl.data.sources.listing import SPLITS, Listing, image_chunks, name_first, records, refuse_repeated
from pcam_ssl.data.sources.tree import Tree, image_names, read_whole, stem
from pcam_ssl.errors import UserError

NORMAL = ("0", "normal", "negative", "neg", "benign", "healthy", "non_tumor", "no_tumor", "nontumor")
TUMOR = ("1", "tumor", "tumour", "positive", "pos", "malignant", "cancer", "metastasis")
CLASSES = dict.fromkeys(NORMAL, 0) | dict.fromkeys(TUMOR, 1)


def listing(tree: Tree) -> Listing:
    """The Listing of an image folder. Raises UserError where neither folder names nor a csv give split and class, or where they conflict."""
    images = image_names(tree)
    tables = _label_tables(tree)
    if len(tables) > 1:
        raise UserError(f"{tree.path}: {len(tables)} csv files have the columns id and label ({name_first(tables)}); leave one")
    if tables:
        return _with_csv(tree, images, *tables)
    table = _by_folder_names(tree, images)
    refuse_repeated(table["id"], table["place"], str(tree.path))
    return Listing(str(tree.path), "image folder", table, image_chunks(tree.images, images), images=tree.images)


def single(path: Path) -> Listing:
    """One image file as an unlabelled test patch."""
    table = records([path.stem], "test", place=[path.name])
    return Listing(str(path), "image", table, image_chunks(partial(FolderImages, path.parent), [path.name]))


def _by_folder_names(tree: Tree, images: list[str]) -> pd.DataFrame:
    folders = {str(PurePosixPath(name).parent) for name in images}
    if len(folders) == 1 and not _meaning(folders.copy().pop()):
        return records([stem(name) for name in images], "test", place=images)
    unknown = sorted(folder for folder in folders if not _meaning(folder))
    if unknown:
        wanted = "name folders 0 and 1 (or normal and tumor) inside train, valid, test, or add a csv with the columns id,label"
        raise UserError(f"{tree.path}: folder {name_first(unknown)} names neither a class nor a split; {wanted}")
    meanings = [_meaning(str(PurePosixPath(name).parent)) for name in images]
    return records(
        ids_of(images), [split for split, _ in meanings], pd.array([label for _, label in meanings], dtype="Int8"), place=images
    )


def _meaning(folder: str) -> tuple[str, int | None] | None:
    """(split, label) from the name of a folder, None where the name is neither a split nor a class."""
    parts = [part.lower().replace("-", "_").replace(" ", "_") for part in PurePosixPath(folder).parts]
    split = next((SPLITS[part] for part in reversed(parts) if part in SPLITS), None)
    if parts and parts[-1] in CLASSES:
        return split or "train", CLASSES[parts[-1]]
    return (split, None) if parts and parts[-1] in SPLITS else None


def ids_of(images: list[str]) -> list[str]:
    """File names where all are different, else paths; both without suffix."""
    stems = [stem(name) for name in images]
    if len(set(stems)) == len(stems):
        return stems
    top = commonpath([str(PurePosixPath(name).parent) for name in images])
    return [str(PurePosixPath(name).relative_to(top or ".").with_suffix("")) for name in images]


def _label_tables(tree: Tree) -> list[str]:
    names = [name for name in tree.names if name.lower().endswith(".csv")]
    return [name for name in names if {"id", "label"} <= set(read_csv(read_whole(tree, name), f"{tree.path}: {name}", []).columns)]


def _with_csv(tree: Tree, images: list[str], name: str) -> Listing:
    where = f"{tree.path}: {name}"
    frame = read_csv(read_whole(tree, name), where, ["id", "label"])
    refuse_repeated_rows(frame, "label", where)
    frame["place"] = frame["id"].map(_index(tree, images, set(frame["id"])))
    found = Listing(str(tree.path), "image folder with csv", frame, None, images=tree.images)
    found.mismatch("labels_without_image", frame["id"][frame["place"].isna()], f"ids in {where} have no image")
    found.mismatch("images_without_label", set(images) - set(frame["place"].dropna()), f"images have no row in {where}")
    frame = frame.dropna(subset="place").reset_index(drop=True)
    if frame.empty:
        raise UserError(f"{where}: none of its ids names an image; write file names without suffix into the column id")
    optional = {column: known(frame[column]) for column in ("wsi", "x", "y") if column in frame}
    for column in {"x", "y"} & set(optional):
        optional[column] = pd.to_numeric(optional[column], errors="coerce").round().astype("Int32")
    split = parse_splits(frame["split"], where) if "split" in frame else frame["place"].map(_split_of)
    found.records = records(frame["id"], split, parse_labels(frame["label"], frame["id"], where), **optional, place=frame["place"])
    refuse_repeated(found.records["place"], found.records["id"], where)
    found.chunks = image_chunks(tree.images, found.records["place"].tolist())
    return found


def _split_of(name: str) -> str:
    return next((SPLITS[part.lower()] for part in reversed(PurePosixPath(name).parts[:-1]) if part.lower() in SPLITS), "train")


def _index(tree: Tree, images: list[str], wanted: set[str]) -> dict[str, str]:
    """The image of each wanted id. An id is a path or file name, with or without suffix. Raises UserError where it matches two images."""
    index: dict[str, str] = {}
    for name in images:
        path = PurePosixPath(name)
        for key in {name, path.name, path.stem, str(path.with_suffix(""))} & wanted:
            if key in index:
                raise UserError(f"{tree.path}: id {key} could be {index[key]} or {name}; write the path into the column id")
            index[key] = name
    return index
