"""`pcam-ssl pseudo-label RUN --explain ID`: one patch's story from the trails on disk."""

from pathlib import Path

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.pseudo_labels.columns import TRAIL_COLUMNS
from pcam_ssl.pseudo_labels.labeling import TRAIL
from pcam_ssl.pseudo_labels.patch_history import patch_story
from pcam_ssl.runs.run import POOLED, Run
from pcam_ssl.search.queries import nearest_ids
from pcam_ssl.tables import read_table


def tell_patch(path: Path | str, id: str, out: Path | str | None = None, pooled: bool = False) -> str:
    """The story of patch `id` over the rounds of the run at `path`. Raises UserError for an id that no trail holds."""
    folder = Path(out) if out is not None else Path(path) / POOLED if pooled else Path(path)
    trails = {
        int(each.parent.name.removeprefix("round-")): read_table(each, TRAIL_COLUMNS)[0]
        for each in sorted(folder.glob(f"round-*/{TRAIL}"))
    }
    return patch_story(trails, id, nearest_ids, _truth(Run(path), id))


def _truth(run: Run, id: str) -> int | None:
    """The patch's label where the dataset still lies where the run found it, and knows one."""
    try:
        patches = open_dataset(run.info()["dataset"]).patches
    except UserError:
        return None
    label = patches.label[patches.id == id]
    return None if label.empty or label.isna().all() else int(label.iloc[0])
