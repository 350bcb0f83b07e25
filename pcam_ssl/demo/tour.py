"""`pcam-ssl demo`: one recipe under leaky and grouped folds, an embedding to search with, and one round of pseudo-labels."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pcam_ssl.api import pseudo_label, recipe, search, synth, train
from pcam_ssl.cross_validation import cross_validate
from pcam_ssl.data.dataset import Dataset, is_dataset, open_dataset
from pcam_ssl.demo.report import Tour, tour_text
from pcam_ssl.demo.sample import choose_sample
from pcam_ssl.errors import UserError
from pcam_ssl.files import check_folder
from pcam_ssl.runs.run import Run
from pcam_ssl.terminal import say, warn

SLIDES = {"slides": 100, "patches": 12, "test_slides": 160, "size": 48, "stain_shift": 0.8, "tumor_signal": 2.2, "coarse": 0.35}
"""The synthetic slides: options of `synth`. The test slides outnumber the others, so that what is kept is known better than what is promised."""
NO_SLIDES = (
    "no slide ids: folds group patches by clusters of similar stain, which may split a slide, so every score below may be too good,"
    " and no slides are held out to test that; give --wsi a csv id,wsi"
)


@dataclass(frozen=True)
class Recipes:
    """A recipe, what the metric run changes in it, and what the run changes that the round starts from (None: the grouped run itself)."""

    name: str
    metric: dict[str, Any]
    few: dict[str, Any] | None = None


SMALL = Recipes("demo", {"method.name": "metric", "method.projection": 32, "train.epochs": 18})
# samples_per_epoch is below the number of labels, so that a student takes as many steps as the network it is compared with. Few labels need
# stain jitter, since stain differs between slides; all labels are shown without it, since that is where random folds flatter most.
FEW = {
    "data.label_budget": 160,
    "train.samples_per_epoch": 96,
    "train.epochs": 60,
    "train.batch_size": 16,
    "views.policy": "standard",
}
DRAWN = replace(SMALL, few=FEW)
FROZEN = Recipes(
    "demo-data",
    {"method.name": "metric", "method.projection": 128, "optim.name": "adamw", "optim.lr": 1e-3, "train.epochs": 20},
)


def demo(folder: Path | str, *, data: Path | str | None = None, wsi: Path | str | None = None, seed: int = 0) -> str:
    """The tour as text for a terminal of 80 columns: a table of scores, a sentence on each finding, and what to open.

    `data` is any source of `import_dataset`, `wsi` a csv `id,wsi`; without `data` slides are drawn. Raises UserError where `folder` cannot be
    written, holds another demo, or the source has too little to show.
    """
    return tour_text(take_tour(folder, data=data, wsi=wsi, seed=seed))


def take_tour(
    folder: Path | str,
    *,
    data: Path | str | None = None,
    wsi: Path | str | None = None,
    seed: int = 0,
    slides: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> Tour:
    """Train what `folder` lacks, and return what was found. `slides` are options of `synth` (`SLIDES`), `settings` change the recipe of every run."""
    folder = Path(folder)
    check_folder("--folder", folder)
    if data is None and wsi is not None:
        raise UserError("--wsi: only with --data; synthetic slides have their own ids")
    dataset = drawn(folder, seed, slides or SLIDES) if data is None else sampled(folder, Path(data), wsi, seed)
    recipes = DRAWN if data is None else recipes_for_patches()
    shared = {"seed": seed, **(settings or {})}
    grouped = train(dataset, recipes.name, shared, out=folder / "grouped")
    bare = {**shared, "score.floor": False}
    leaky = _without_page(dataset, recipes.name, {**bare, "cv.scheme": "random"}, folder / "random")
    metric = _without_page(dataset, recipes.name, {**bare, **recipes.metric}, folder / "metric")
    page = folder / "neighbours.html"
    search(metric, queries(dataset), k=8, html=page)
    start = grouped if recipes.few is None else _without_page(dataset, recipes.name, {**bare, **recipes.few}, folder / "few-labels")
    # Without the control: it takes as long as the round, and the demo shows how a round works.
    verdict = pseudo_label(start, rounds=1, settings=["pseudo.control=false", "pseudo.headroom=false"])
    return Tour(dataset, grouped, leaky, metric, start, verdict, page, "synthetic slides" if data is None else Path(data).name)


def _without_page(dataset: Dataset, name: str, settings: dict[str, Any], out: Path) -> Run:
    """As `api.train`, without the report: a page takes as long as a fold, and `pcam-ssl report` writes it when it is wanted."""
    chosen = recipe(name, settings)
    command = cross_validate.metric_train if chosen.method.name == "metric" else cross_validate.baseline
    return command(chosen, dataset.path, out)


def drawn(folder: Path, seed: int, slides: dict[str, Any]) -> Dataset:
    """The synthetic slides of the demo. Test slides keep their labels, so that promised and kept scores can be compared."""
    path = folder / "slides"
    if not is_dataset(path):
        count = slides["slides"] + slides["test_slides"]
        say(f"{path}: drawing {count} synthetic slides of {slides['patches']} patches")
        return synth(path, seed=seed, label_test=True, **slides)
    dataset = open_dataset(path)
    if not dataset.manifest["source"].startswith(f"synthetic slides, seed {seed},"):
        raise UserError(f"{path}: holds {dataset.manifest['source']}; choose another --folder")
    return dataset


def sampled(folder: Path, source: Path, wsi: Path | str | None, seed: int) -> Dataset:
    """A sample of the user's patches as a dataset, imported once."""
    path = folder / "patches"
    if is_dataset(path):
        dataset = open_dataset(path)
        if dataset.manifest["source"] != str(source) or (wsi is not None) != ("slides_from" in dataset.manifest["notes"]):
            raise UserError(f"{path}: holds patches of {dataset.manifest['source']}, imported otherwise; choose another --folder")
    else:
        from pcam_ssl.data.importing import import_source

        choose = partial(choose_sample, source=str(source), seed=seed)
        dataset = import_source(source, path, wsi=wsi, choose=choose)
    patches = dataset.patches
    if patches.wsi[patches.label.notna()].isna().any():
        warn(NO_SLIDES)
    return dataset


def recipes_for_patches() -> Recipes:
    """Heads on real weights where they are installed, else the small network from random weights."""
    from timm.models import get_pretrained_cfg

    from pcam_ssl.models.backbone import package_for
    from pcam_ssl.models.weights import EXTRA, in_hub_cache
    from pcam_ssl.recipe.loading import load_recipe

    name = load_recipe(FROZEN.name, []).model.name
    if package_for(name) is None and not in_hub_cache(get_pretrained_cfg(name).hf_hub_id):
        warn(f"no weights of {name} are installed, so a small network is trained from RANDOM weights; {EXTRA} installs them")
        return SMALL
    return FROZEN


def queries(dataset: Dataset) -> list[str]:
    """Two patches of each class, held out where there are such."""
    patches = dataset.patches[dataset.patches.label.notna()]
    held_out = patches[patches.split == "test"]
    return (held_out if len(held_out) else patches).groupby("label").head(2).id.tolist()
