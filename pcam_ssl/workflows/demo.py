"""`pcam-ssl demo`: the main job on synthetic slides, and the leak it prevents, in minutes on a laptop."""

from pathlib import Path

from pcam_ssl.data.store import is_dataset
from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.recipe_files import load_recipe
from pcam_ssl.report.demo_table import demo_table
from pcam_ssl.terminal import say
from pcam_ssl.workflows.baseline import baseline
from pcam_ssl.workflows.gather import read_scores

SLIDES, PATCHES, TEST_SLIDES = 24, 40, 12


def demo(folder: Path | str) -> str:
    """Make slides, train the same recipe under grouped and under random folds, and return a table of both against the truth.

    The test slides keep their labels here, so that the out-of-fold scores can be held against new slides.
    """
    folder = Path(folder)
    dataset = folder / "slides"
    if not is_dataset(dataset):
        say(f"{dataset}: drawing {SLIDES + TEST_SLIDES} synthetic slides of {PATCHES} patches")
        write_synthetic(dataset, slides=SLIDES, patches=PATCHES, test_slides=TEST_SLIDES, label_test=True)
    runs = {}
    for scheme in ("grouped", "random"):
        run = baseline(load_recipe("demo", [f"cv.scheme={scheme}"]), dataset, folder / scheme)
        runs[scheme] = (run, read_scores(run))
    return demo_table(runs)
