"""`pcam-ssl heatmap RUN SLIDE|DATASET`: cut the slide where needed, score its patches, write the maps and their numbers."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import Dataset, is_dataset, open_dataset
from pcam_ssl.errors import UserError, nearest
from pcam_ssl.evaluation.bootstrap import intervals_and_differences
from pcam_ssl.files import check_folder, digest_text, remove_folder, write_json
from pcam_ssl.heatmap.cells import CALLED, Grid, Numbers, lay_out, map_numbers
from pcam_ssl.heatmap.outputs import FILES, PAGE, SUMMARY, Drawn, cells_words, write_outputs
from pcam_ssl.heatmap.probs import Witness, run_dataset, slide_probs, witnesses
from pcam_ssl.records import read_heat_maps
from pcam_ssl.render.document import Table
from pcam_ssl.render.format import interval, three
from pcam_ssl.render.text import aligned
from pcam_ssl.runs.embedder import unit_digest
from pcam_ssl.runs.lock import lock_file
from pcam_ssl.runs.run import Run, run_in_use
from pcam_ssl.slides.plan import Cutting, check_mpp
from pcam_ssl.slides.reader import slide_name
from pcam_ssl.slides.space import SlideSpace, slide_space
from pcam_ssl.slides.tiling import tile_slides
from pcam_ssl.terminal import progress, warn

FITS = 0.01
"""How much the um/px of patches may differ from those the run learned from without a warning, relative."""
PRINTED = 30
"""Slides in the printed table; summary.json has all."""
PROBLEMS = 10
"""Slides named in an error."""
RESAMPLES = 2000
LOCK, WAIT_S = ".summary.lock", 600.0
"""Held while maps are added to the summary of a folder, and how long to wait for it; other commands add theirs in seconds."""


@dataclass(frozen=True)
class Cut:
    """How a slide file is cut, in the words of `data tile`; None is as the run's dataset was, where that says it.

    For a dataset that does not say it, `mpp` is um/px of its coordinates.
    """

    size: int | None = None
    mpp: float | None = None
    stride: int | None = None
    tissue: float | None = None
    assume_mpp: float | None = None
    workers: int | None = None


@dataclass(frozen=True)
class HeatMap:
    """The heat map of one slide: its folder, its numbers, and who scored it."""

    wsi: str
    folder: Path
    numbers: Numbers
    fold: int | None
    """The fold that never saw the slide; None for the mean of all folds."""
    scored: str
    """Whose probs they are, in words."""
    label: int | None
    """1 where a labelled patch of the slide is tumor, 0 where none is, None where no patch has a label."""

    @property
    def page(self) -> Path:
        return self.folder / PAGE

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"slide": self.wsi, "fold": self.fold, "scored": self.scored, "label": self.label, **self.numbers.to_dict()}


@dataclass(frozen=True)
class HeatMaps:
    """Heat maps of slides, `summary.json` in their folder, and AUROC of slides where labels tell tumor slides from others."""

    run: str
    folder: Path
    maps: list[HeatMap]
    scores: dict[str, dict]
    """By name of a number: its AUROC over slides with interval, and `difference` to the first, paired. Empty with one class only."""
    dataset: str
    """Digest of the patches' dataset."""
    networks: dict[str, str]
    """Digests of the networks, by fold."""
    earlier: list[HeatMap] = field(default_factory=list)
    """Maps of other slides of the dataset by the same networks, which earlier calls left in the folder: they are part of `scores` and
    `summary.json`."""

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, place: int) -> HeatMap:
        return self.maps[place]

    @property
    def table(self) -> pd.DataFrame:
        """A row a slide: slide, fold, scored, label, and its numbers."""
        return pd.DataFrame([each.to_dict() for each in self.maps])

    def to_dict(self) -> dict[str, Any]:
        """What summary.json holds."""
        return {
            "run": self.run,
            "dataset": self.dataset,
            "networks": self.networks,
            "called_from_prob": CALLED,
            "slides": [each.to_dict() | {"page": str(each.page.relative_to(self.folder))} for each in self.maps + self.earlier],
            "slide_auroc": self.scores,
        }

    def __repr__(self) -> str:
        return heat_text(self)


def heat_maps(
    path: Path,
    source: Path,
    *,
    out: Path | None = None,
    slides: tuple[str, ...] = (),
    cut: Cut = Cut(),
    data: Path | None = None,
    round: int | None = None,
    device: str = "auto",
) -> HeatMaps:
    """Heat maps of a slide file, or of `slides` (all) of a dataset with coordinates, by the run at `path`.

    Raises UserError where run, source, slides or folder do not hold.
    """
    run = run_in_use(path, round)
    run.info()
    learned = run_dataset(run, data)
    packed = is_dataset(source)
    folder = out if out is not None else run.path / "heatmaps" / _safe(source.resolve().name if packed else slide_name(source))
    _check_folder(folder, packed)
    with _opened(source, run, learned, cut) as dataset:
        _check_patches(run, source, learned, dataset)
        patches = _placed(dataset, source, slides)
        made = HeatMaps(str(run.path), folder, [], {}, dataset.digest, _networks(run))
        if packed:
            _earlier(made, set(patches.wsi))
        names = list(dict.fromkeys(patches.wsi))
        speak = witnesses(run, learned, dataset, names)
        silent = {name: each.problem for name, each in speak.items() if each.problem}
        if silent and (slides or len(silent) == len(names)):
            raise UserError(*list(silent.values())[:PROBLEMS])
        if silent:
            warn(
                f"{len(silent):,} of {len(names):,} slides are left out, since no network may speak on them; first {next(iter(silent.values()))}"
            )
            patches = patches[~patches.wsi.isin(silent)]
        spaces = {name: slide_space(dataset, name, cut.mpp) for name in dict.fromkeys(patches.wsi)}
        by_slide = patches.groupby("wsi", sort=False)
        grids = {name: lay_out(rows, spaces[name].tile_px, spaces[name].step_px) for name, rows in by_slide}
        patches = patches.assign(prob=slide_probs(run, dataset, patches, speak, device))
        maps = []
        with progress("drawing", len(spaces), "slides") as advance:
            for name, rows in patches.groupby("wsi", sort=False):
                target = folder / _safe(name) if packed else folder
                maps.append(_write(target, name, rows, run, speak[name], spaces[name], grids[name], dataset))
                advance()
    # Another command may have mapped further slides meanwhile, or be about to add them.
    with lock_file(folder / LOCK, f"{folder / SUMMARY}", WAIT_S) if packed else nullcontext():
        earlier = _earlier(made, {each.wsi for each in maps}) if packed else []
        made = replace(made, maps=maps, scores=slide_scores(maps + earlier), earlier=earlier)
        write_json(folder / SUMMARY, made.to_dict())
    return made


def _write(
    target: Path, name: str, rows: pd.DataFrame, run: Run, speaks: Witness, space: SlideSpace, grid: Grid, dataset: Dataset
) -> HeatMap:
    def pixels(at: np.ndarray) -> np.ndarray:
        return np.asarray(dataset.pixels[at])

    probs = rows.prob.to_numpy()
    prob_map = grid.means(probs)
    numbers = map_numbers(prob_map, probs, grid.covered_mm2(space.mpp))
    drawn = Drawn(name, str(run.path), speaks.words, rows, pixels, space, grid, prob_map, numbers)
    was_there = target.exists()
    try:
        write_outputs(target, drawn)
    except OSError:
        # A full disk: a folder without its page would look like a finished map.
        if target.is_dir() and not was_there:
            remove_folder(target)
        raise
    labels = rows.label.dropna()
    return HeatMap(name, target, numbers, speaks.fold, speaks.words, int(labels.max()) if len(labels) else None)


def _networks(run: Run) -> dict[str, str]:
    """Digests of the networks of a run, by fold; of a blend that of its members and weights."""
    if blended := run.info().get("blend"):
        return {"blend": digest_text(repr(blended))}
    return {each.name: unit_digest(each) for each in sorted(run.path.glob("fold-*")) if run.unit_done(each.name)}


def _earlier(made: HeatMaps, mapped: set[str]) -> list[HeatMap]:
    """Maps in the folder of other slides than those that are `mapped` now. Raises UserError where they are of another dataset or by other networks."""
    folder = made.folder
    if not (folder / SUMMARY).exists():
        return []
    summary = read_heat_maps(folder / SUMMARY)
    rows = [row for row in summary["slides"] if row["slide"] not in mapped and (folder / row["page"]).is_file()]
    others = "dataset" if summary["dataset"] != made.dataset else "networks" if summary["networks"] != made.networks else None
    if rows and others:
        whose = "of another dataset" if others == "dataset" else f"by other networks than those of {made.run} now"
        raise UserError(
            f"{folder}: holds maps of {len(rows):,} other slides {whose}; choose another folder with --out, or map all slides"
        )
    names = [each.name for each in fields(Numbers)]
    return [
        HeatMap(
            *(row["slide"], (folder / row["page"]).parent, Numbers(**{name: row[name] for name in names})),
            *(row["fold"], row["scored"], row["label"]),
        )
        for row in rows
    ]


@contextmanager
def _opened(source: Path, run: Run, learned: Dataset | None, cut: Cut) -> Iterator[Dataset]:
    """The dataset, or that of a slide file, cut into a temporary folder."""
    if is_dataset(source):
        if (cut.size, cut.stride, cut.tissue, cut.assume_mpp) != (None,) * 4:
            raise UserError(f"{source}: is cut already; --size, --stride, --tissue and --assume-mpp are for a slide file")
        check_mpp("mpp", cut.mpp)
        dataset = open_dataset(source)
        if cut.mpp is not None and "tiling" in dataset.manifest["notes"]:
            raise UserError(f"--mpp {cut.mpp:g}: {source} says the microns per pixel of its slides; leave --mpp out")
        yield dataset
        return
    if not source.exists():
        raise UserError(
            f"{source}: no such slide or dataset; name a whole slide, or a folder of `pcam-ssl data import` or `pcam-ssl data tile`"
        )
    cutting = _cutting(source, run, learned, cut)
    with tempfile.TemporaryDirectory(prefix="pcam-ssl-") as scratch:
        yield tile_slides([source], Path(scratch) / "slide", cutting, workers=cut.workers)


def _cutting(source: Path, run: Run, learned: Dataset | None, cut: Cut) -> Cutting:
    """How the slide is cut: into patches as the run learned from, where its dataset says it. Raises UserError where nothing does."""
    known = {} if learned is None else {"size_px": learned.size_px, **learned.manifest["notes"].get("tiling", {})}
    size, mpp = cut.size or known.get("size_px"), cut.mpp or known.get("mpp")
    absent = [option for option, value in (("--size 96", size), ("--mpp 0.97", mpp)) if value is None]
    if absent:
        raise UserError(
            f"{source}: the dataset of {run.path} does not say how large its patches are on a slide; add {' '.join(absent)}, PatchCamelyon's"
        )
    if learned is not None and size != learned.size_px:
        raise UserError(f"--size {size}: {run.path} learned from patches of {learned.size_px} px; leave --size out")
    if known.get("mpp") and abs(mpp / known["mpp"] - 1) > FITS:
        warn(f"--mpp {mpp:g}: the run learned from patches of {known['mpp']:g} um/px")
    return Cutting(size, mpp, cut.stride or size, 0.5 if cut.tissue is None else cut.tissue, cut.assume_mpp)


def _check_patches(run: Run, source: Path, learned: Dataset | None, dataset: Dataset) -> None:
    if learned is not None and dataset.size_px != learned.size_px:
        raise UserError(
            f"{source}: its patches are {dataset.size_px} px, {run.path} learned from patches of {learned.size_px} px; give patches of that size"
        )


def _placed(dataset: Dataset, source: Path, slides: tuple[str, ...]) -> pd.DataFrame:
    """The patches of the slides (all where none is named) that have a place. Raises UserError for unknown slides, and where none has one."""
    placed = dataset.patches.dropna(subset=["wsi", "x", "y"]).astype({"x": "int64", "y": "int64"})
    if placed.empty:
        raise UserError(
            f"{source}: its patches have no slide or no coordinates; import it with --wsi-pattern, or cut slides with `pcam-ssl data tile`"
        )
    known = list(dict.fromkeys(placed.wsi))
    unknown = [name for name in slides if name not in known]
    if unknown:
        raise UserError(
            *(
                f"--slide {name}: {source} has no such slide.{nearest(name, known) or f' It has {len(known):,}, first {known[0]}'}"
                for name in unknown
            )
        )
    return placed[placed.wsi.isin(slides)] if slides else placed


def slide_scores(maps: list[HeatMap]) -> dict[str, dict]:
    """AUROC of the maps' numbers over slides with a label, slides resampled; empty where these are of one class. The order changes nothing."""
    known = sorted((each for each in maps if each.label is not None), key=lambda each: each.wsi)
    if len({each.label for each in known}) < 2:
        return {}
    numbers = {name: [getattr(each.numbers, name) for each in known] for name in ("maximum", "percentile_99", "share")}
    labels, names = [each.label for each in known], [each.wsi for each in known]
    found = intervals_and_differences(labels, [np.array(values) for values in numbers.values()], names, RESAMPLES)
    return {name: {**scores["auroc"], "difference": gaps["auroc"]} for name, (scores, gaps) in zip(numbers, found, strict=True)}


def _safe(name: str) -> str:
    """A folder's name for a slide: its own where that is safe, else its safe characters and a digest."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:100].lstrip(".")
    return safe if safe and safe == name and safe not in FILES else f"{safe or 'slide'}-{digest_text(name)[:8]}"


def _check_folder(folder: Path, nested: bool) -> None:
    """Raises UserError where the folder cannot be made, or holds what no heat map wrote."""
    check_folder("--out", folder)
    if not folder.is_dir():
        return
    below = [each for part in folder.iterdir() if nested and part.is_dir() for each in part.iterdir()]
    entries = [part for part in folder.iterdir() if not (nested and part.is_dir())] + below
    foreign = [each for each in entries if each.is_dir() or not _of_maps(each.name)]
    if foreign:
        raise UserError(f"--out {folder}: holds {foreign[0].relative_to(folder)}, which no heat map wrote; choose another folder")


def _of_maps(name: str) -> bool:
    """Whether heat maps write a file of that name: a result, a part of one, or the lock and who holds it."""
    return name in FILES or name.endswith(".part") or name.startswith(LOCK.removesuffix("lock"))


def heat_text(made: HeatMaps) -> str:
    """The slides with their numbers, most suspicious first; AUROC over slides; where the pages are."""
    ranked = sorted(made.maps, key=lambda each: -each.numbers.maximum)[:PRINTED]
    head = ("slide", "patches", "called tumor", "largest lesion", "highest", "99th pct", "scored")
    rows = [
        (
            each.wsi,
            f"{each.numbers.tiles:,}",
            f"{each.numbers.share:.1%}",
            cells_words(each.numbers) if each.numbers.lesion_mm2 is None else f"{each.numbers.lesion_mm2:.3g} mm²",
            three(each.numbers.maximum),
            three(each.numbers.percentile_99),
            each.scored,
        )
        for each in ranked
    ]
    lines = [aligned(Table(head, rows, align="lrrrrrl"))]
    if len(made.maps) > PRINTED:
        lines.append(f"and {len(made.maps) - PRINTED:,} more in {made.folder / SUMMARY}")
    names = {"maximum": "highest prob", "percentile_99": "99th percentile", "share": "share called tumor"}
    for name, score in made.scores.items():
        gap = "" if name == "maximum" else f", {interval(score['difference'], '+.3f')} to the highest prob, paired"
        lines.append(f"AUROC of slides by {names[name]}: {interval(score)}{gap}")
    if made.earlier:
        lines.append(f"{len(made.earlier):,} slides were mapped before; {made.folder / SUMMARY} has them, too")
    page = made.maps[0].page if len(made.maps) == 1 else made.folder / "SLIDE" / PAGE
    return "\n".join([*lines, f"page {page}"])
