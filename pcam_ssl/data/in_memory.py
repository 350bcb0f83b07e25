"""Patches in memory, or image files by name, as a source: packed into a temporary dataset, so that every command reads one kind of input."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl.data.images import BadImage, decode
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError


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
