"""Kaggle "Histopathologic Cancer Detection": train/, test/, train_labels.csv, sample_submission.csv, as zip or folder. No torch."""

from pathlib import PurePosixPath

from pcam_ssl.data.sources.csv_table import parse_labels, read_csv, refuse_repeated_rows
from pcam_ssl.data.sources.listing import Listing, image_chunks, records, refuse_repeated
from pcam_ssl.data.sources.tree import Tree, image_names, read_whole, stem
from pcam_ssl.errors import UserError

LABELS_CSV, SAMPLE_CSV = "train_labels.csv", "sample_submission.csv"


def looks_like(tree: Tree) -> bool:
    """Whether one of Kaggle's csv files is there; images alone are read as an image folder."""
    return any(PurePosixPath(name).name in (LABELS_CSV, SAMPLE_CSV) for name in tree.names)


def listing(tree: Tree) -> Listing:
    """Records of the images directly in train/ and test/, labels joined on id. Raises UserError for csv files that do not hold."""
    prefix = _prefix(tree)
    images = [name for name in image_names(tree) if str(PurePosixPath(name).parent) in (f"{prefix}train", f"{prefix}test")]
    images.sort(key=lambda name: (PurePosixPath(name).parent.name != "train", name))
    if not images:
        raise UserError(f"{tree.path}: has Kaggle's csv files but no images in {prefix}train/ or {prefix}test/; unpack it whole")
    ids = [stem(name) for name in images]
    splits = [PurePosixPath(name).parent.name for name in images]
    table = records(ids, splits, place=images)
    refuse_repeated(table["id"], table["place"], str(tree.path))
    found = Listing(str(tree.path), "kaggle", table, image_chunks(tree.read, images))
    if prefix + LABELS_CSV in tree.names and (table["split"] == "train").any():
        _join_labels(found, tree, prefix + LABELS_CSV)
    if prefix + SAMPLE_CSV in tree.names and (table["split"] == "test").any():
        _join_sample(found, tree, prefix + SAMPLE_CSV)
    return found


def _prefix(tree: Tree) -> str:
    """'' or 'folder/': where the csv files are. Raises UserError where two folders have them."""
    folders = {
        name[: -len(PurePosixPath(name).name)] for name in tree.names if PurePosixPath(name).name in (LABELS_CSV, SAMPLE_CSV)
    }
    if len(folders) > 1:
        raise UserError(f"{tree.path}: Kaggle's csv files are in several folders ({', '.join(sorted(folders))}); name one of them")
    return folders.pop()


def _join_labels(found: Listing, tree: Tree, name: str) -> None:
    where = f"{tree.path}: {name}"
    frame = read_csv(read_whole(tree, name), where, ["id", "label"])
    refuse_repeated_rows(frame, "label", where)
    labels = parse_labels(frame["label"], frame["id"], where)
    table = found.records
    train = table["split"] == "train"
    table["label"] = table["id"].where(train).map(dict(zip(frame["id"], labels, strict=True))).astype("Int8")
    known = set(frame["id"])
    listed = known & set(table["id"][train])
    found.mismatch("labels_without_image", known - listed, f"ids in {where} have no image in train/")
    found.mismatch("images_without_label", set(table["id"][train]) - listed, f"images in train/ have no row in {where}")
    # Not the same as an empty label: nobody said that these are to be used unlabelled.
    keep = ~train | table["id"].isin(listed)
    if not keep.all():
        found.records = table[keep].reset_index(drop=True)
        found.chunks = image_chunks(tree.read, found.records["place"].tolist())


def _join_sample(found: Listing, tree: Tree, name: str) -> None:
    where = f"{tree.path}: {name}"
    frame = read_csv(read_whole(tree, name), where, ["id"])
    refuse_repeated_rows(frame, "id", where)
    test = set(found.records["id"][found.records["split"] == "test"])
    found.mismatch("sample_ids_without_image", set(frame["id"]) - test, f"ids in {where} have no image in test/")
    found.mismatch("test_images_not_in_sample", test - set(frame["id"]), f"images in test/ have no row in {where}")
    found.sample_submission = frame["id"][frame["id"].isin(test)].tolist()
