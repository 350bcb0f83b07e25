"""Sources of patches, one file per format. The format is recognised from the source."""

from pathlib import Path
from shlex import quote

from pcam_ssl.data.dataset import is_dataset
from pcam_ssl.data.images import SUFFIXES
from pcam_ssl.data.sources import folder, hdf5, kaggle, parquet, pattern
from pcam_ssl.data.sources.listing import Listing
from pcam_ssl.data.sources.tree import FolderTree, ZipTree, image_names
from pcam_ssl.errors import UserError
from pcam_ssl.terminal import say

LOOKED_FOR = (
    "Kaggle's zip or folder (train/, test/, train_labels.csv), PCam HDF5 (*_split_train_x.h5[.gz]), "
    "Hugging Face parquet, images in class folders (train/0, train/1) or with a csv id,label, or one image"
)


def list_source(source: Path | str, verify: bool = True, wsi_pattern: str | None = None) -> Listing:
    """The Listing of a source in any supported format. Raises UserError where the format is not recognised or the source is invalid.

    With `verify` a file with the name of a published file but another MD5 is refused. `wsi_pattern`: slides from paths of images (`pattern`).
    """
    path = Path(source)
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; name what to import")
    if path.is_dir():
        if is_dataset(path):
            raise UserError(f"{path}: is a dataset already; use it as it is with --data {quote(str(path))}")
        if hdf5.looks_like(path) and wsi_pattern is None:
            return hdf5.listing(path, verify)
        if parquet.parquet_files(path) and wsi_pattern is None:
            return parquet.listing(path)
        return _list_tree(FolderTree(path), wsi_pattern)
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _list_tree(ZipTree(path), wsi_pattern)
    if wsi_pattern is not None:
        raise UserError(
            f"--wsi-pattern: reads the paths of images in a folder or zip, and {path} is neither; give slides by --wsi CSV"
        )
    if suffix == ".parquet":
        return parquet.listing(path)
    if suffix in SUFFIXES:
        return folder.single(path)
    raise UserError(f"{path}: format not recognised; looked for {LOOKED_FOR}")


def _list_tree(tree: FolderTree | ZipTree, wsi_pattern: str | None) -> Listing:
    if wsi_pattern is not None and image_names(tree):
        return pattern.listing(tree, wsi_pattern)
    if kaggle.looks_like(tree):
        return kaggle.listing(tree)
    if image_names(tree) and (layout := pattern.known_layout(tree)) is not None:
        say(f"{tree.path}: the layout of {layout.name}; slides are read from file names")
        return pattern.listing(tree, layout.pattern, layout)
    if image_names(tree):
        return folder.listing(tree)
    raise UserError(f"{tree.path}: format not recognised; looked for {LOOKED_FOR}")
