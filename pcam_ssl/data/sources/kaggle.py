"""Kaggle "Histopathologic Cancer Detection": train/, test/, train_labels.csv, sample_submission.csv, as zip or folder."""

from posixpath import basename, dirname

from pcam_ssl.data.sources.csv_table import parse_labels, read_csv, refuse_repeated_rows
from pcam_ssl.data.sources.listing import Listing, image_chunks, places_in, records, refuse_repeated
from pcam_ssl.data.sources.tree import Tree, image_names, read_whole, stem
from pcam_ssl.errors import UserError

LABELS_CSV, SAMPLE_CSV = "train_labels.csv", "sample_submission.csv"


def looks_like(tree: Tree) -> bool:
    """Whether one of Kaggle's csv files is present. Without them, images are read as an image folder."""
    return any(basename(name) in (LABELS_CSV, SAMPLE_CSV) for name in tree.names)


def listing(tree: Tree) -> Listing:
    """The Listing of the images directly in train/ and test/, with labels joined on id. Raises UserError for invalid csv files."""
    prefix = _prefix(tree)
    train, test = ([name for name in image_names(tree) if dirname(name) == prefix + folder] for folder in ("train", "test"))
    images = train + test
    if not images:
        raise UserError(
            f"{tree.path}: has Kaggle's csv files but no images in {prefix}train/ or {prefix}test/; unpack it completely"
        )
    table = records([stem(name) for name in images], ["train"] * len(train) + ["test"] * len(test), place=images)
    refuse_repeated(table["id"], table["place"], str(tree.path))
    found = Listing(str(tree.path), "kaggle", table, image_chunks(tree.images, images), images=tree.images)
    if prefix + LABELS_CSV in tree.names and (table["split"] == "train").any():
        _join_labels(found, tree, prefix + LABELS_CSV)
    if prefix + SAMPLE_CSV in tree.names and (table["split"] == "test").any():
        _join_sample(found, tree, prefix + SAMPLE_CSV)
    return found


def _prefix(tree: Tree) -> str:
    """The folder of the csv files, '' or 'folder/'. Raises UserError where two folders have them."""
    folders = {name[: -len(basename(name))] for name in tree.names if basename(name) in (LABELS_CSV, SAMPLE_CSV)}
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
    rows = places_in(table["id"].where(train), frame["id"])
    listed = rows >= 0
    table["label"] = labels.array.take(rows, allow_fill=True)
    unused = places_in(frame["id"], table["id"].where(listed)) < 0
    found.mismatch("labels_without_image", frame["id"][unused], f"ids in {where} have no image in train/")
    found.mismatch("images_without_label", table["id"][train & ~listed], f"images in train/ have no row in {where}")
    # An image without a row is left out; an image with an empty label is unlabelled.
    keep = ~train | listed
    if not keep.all():
        found.keep(table[keep])


def _join_sample(found: Listing, tree: Tree, name: str) -> None:
    where = f"{tree.path}: {name}"
    frame = read_csv(read_whole(tree, name), where, ["id"])
    refuse_repeated_rows(frame, "id", where)
    test = found.records["id"][found.records["split"] == "test"]
    known, named = places_in(frame["id"], test) >= 0, places_in(test, frame["id"]) >= 0
    found.mismatch("sample_ids_without_image", frame["id"][~known], f"ids in {where} have no image in test/")
    found.mismatch("test_images_not_in_sample", test[~named], f"images in test/ have no row in {where}")
    found.sample_submission = frame["id"][known].tolist()
