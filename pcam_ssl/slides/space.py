"""What a dataset knows of one of its slides: the edge and step of its patches, um/px, and the thumbnail that `data tile` kept."""

from dataclasses import dataclass
from pathlib import Path

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.files import read_json
from pcam_ssl.slides.tiling import FOLDER


@dataclass(frozen=True)
class SlideSpace:
    """What is known of a slide beside its patches. Coordinates are px of level 0 where `tiled`, else px as in the dataset.

    `tile_px` and `step_px` are edge and distance of patches (None: unknown); `mpp` is um per px of the coordinates. `offset` is where
    QuPath begins to count. A px of the thumbnail is `thumbnail_px` px of the coordinates.
    """

    tile_px: float
    step_px: float | None = None
    mpp: float | None = None
    tiled: bool = False
    offset: tuple[int, int] = (0, 0)
    thumbnail: Path | None = None
    thumbnail_px: float = 1.0


def slide_space(dataset: Dataset, wsi: str, mpp: float | None) -> SlideSpace:
    """What is known of a slide: from the files that `data tile` keeps, else edges of patches are px of the coordinates, and `mpp` is theirs.

    Raises UserError where `data tile` made the dataset and its file of the slide is absent or damaged.
    """
    if "tiling" not in dataset.manifest["notes"]:
        return SlideSpace(float(dataset.size_px), mpp=mpp)
    told = dataset.path / FOLDER / f"{wsi}.json"
    tile = {"size_px": int, "stride_px": int, "level0_px": (float, int)}
    facts = read_json(told, {"mpp": (float, int), "tile": tile, "thumbnail_mpp": (float, int)}, "cut the slides again")
    edge, thumbnail = facts["tile"]["level0_px"], told.with_name(f"{wsi}-thumbnail.jpg")
    return SlideSpace(
        tile_px=edge,
        step_px=edge * facts["tile"]["stride_px"] / facts["tile"]["size_px"],
        mpp=facts["mpp"],
        tiled=True,
        offset=tuple(facts.get("offset_px", (0, 0))),
        thumbnail=thumbnail if thumbnail.is_file() else None,
        thumbnail_px=facts["thumbnail_mpp"] / facts["mpp"],
    )
