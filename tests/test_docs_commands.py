"""Every command of README.md and docs/ runs, page by page, on small synthetic slides and with networks that train in a second."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from documented import ROOT, blocks, documented, pages, steps
from painted_slides import places, write_slide
from PIL import Image

from pcam_ssl.cli import main
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.synthetic import write_synthetic

TINY_BACKBONES = {"resnet34": "test_resnet", "densenet121": "test_vit", "resnet101": "test_efficientnet"}
BUDGET = "data.label_budget=56"
SMALL = {"data.label_budget": BUDGET, "train.epochs": "train.epochs=1"}
"""What takes the place of settings that are shown."""
CURVES = {"100,300,1000,all": "68,72,all", "10,14,20,all": "6,7,all", "0,1": "0"}
"""Budgets for eight slides of ten patches, and fewer seeds."""
RUNS = ("runs/baseline", "runs/metric-train")
TRAINING = ("baseline", "metric-train", "pseudo-label", "label-curve", "plan")
ROUNDS = (
    "headroom=false",
    "precision=null",
    "k_best=5",
    "planted_share=0",
    "stop_worse=false",
    "stop_share=null",
    "stop_ratio=null",
    "stop_flips=null",
)
NEEDS = {
    "index": ("milvus", "pymilvus"),
    "export": ("export", "onnx"),
    "data tile": ("slides", "openslide"),
    "heatmap": ("slides", "openslide"),
}
"""The extra, and a package of it, that a command needs."""
SHOWN = [page for page in pages() if any(not block.not_run for block in blocks(page))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A folder with what the pages import: Kaggle's zip, its slides, patches of one's own with a csv, and new patches without labels."""
    folder = tmp_path_factory.mktemp("sources")
    write_synthetic(folder / "slides", slides=8, test_slides=3, patches=10, size_px=32, seed=4, label_test=True)
    dataset = open_dataset(folder / "slides")
    patches = dataset.patches
    for at in ("my_patches", "new_patches"):
        (folder / at).mkdir()
    with zipfile.ZipFile(folder / "histopathologic-cancer-detection.zip", "w") as archive:
        for patch in patches.itertuples():
            file = folder / ("my_patches" if patch.split == "train" else "new_patches") / f"{patch.id}.tif"
            Image.fromarray(np.asarray(dataset.pixels[patch.row])).save(file)
            archive.write(file, f"{patch.split}/{patch.id}.tif")
        train, test = (patches[patches.split == split] for split in ("train", "test"))
        archive.writestr("train_labels.csv", train[["id", "label"]].to_csv(index=False))
        archive.writestr("sample_submission.csv", test[["id"]].assign(label=0).to_csv(index=False))
    with zipfile.ZipFile(folder / "idc.zip", "w") as archive:
        for patch in train.itertuples():
            file = f"{patch.id}.tif"
            patient = re.sub(r"\D", "", patch.wsi)
            name = f"{patient}_idx5_x{patch.x + 1}_y{patch.y + 1}_class{patch.label}.png"
            with Image.open(folder / "my_patches" / file) as image, archive.open(f"{patient}/{patch.label}/{name}", "w") as target:
                image.save(target, "png")
    train[["id", "wsi"]].to_csv(folder / "patch_id_wsi.csv", index=False)
    train[["id", "label", "wsi"]].to_csv(folder / "my_patches" / "patches.csv", index=False)
    Image.fromarray(np.asarray(dataset.pixels[0])).save(folder / "patch.png")
    shutil.rmtree(folder / "slides")
    if find_spec("tifffile"):
        paint_slides(folder)
    return folder


def paint_slides(folder: Path) -> None:
    """Two whole slides of 0.25 um/px, one of them with annotations."""
    for name in ("slides", "annotations"):
        (folder / name).mkdir()
    for case in ("case-1", "case-2"):
        write_slide(folder / "slides" / f"{case}.svs", [np.tile(places(1024, 512), (4, 2, 1))], mpp=0.25)
    outline = [[[0, 0], [800, 0], [800, 900], [0, 0]]]
    tumor = {"geometry": {"type": "Polygon", "coordinates": outline}, "properties": {"classification": {"name": "Tumor"}}}
    (folder / "annotations" / "case-1.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [tumor]}))


@pytest.fixture(scope="module")
def made(sources, tiny, tmp_path_factory) -> Path:
    """A folder with the dataset `data/pcam` and the runs `runs/baseline` and `runs/metric-train`, as the first commands make them."""
    place = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        settled(place, sources, patch)
        for line in (
            "data import histopathologic-cancer-detection.zip data/pcam --wsi patch_id_wsi.csv",
            "baseline",
            "metric-train",
        ):
            patch.setattr(sys, "argv", ["pcam-ssl", *adapted(line.split(), tiny)])
            with pytest.raises(SystemExit) as stop:
                main()
            assert stop.value.code == 0
    return place


@pytest.mark.processes
@pytest.mark.parametrize("page", SHOWN, ids=name)
def test_the_commands_of_a_page_run_one_after_the_other(page, command, made, sources, tiny, tmp_path, monkeypatch):
    shown = documented(page)
    for extra, package in {NEEDS[verb] for words in shown for verb in NEEDS if " ".join(words).startswith(f"{verb} ")}:
        pytest.importorskip(package, reason=f"{package} is not installed (extra: {extra})")
    settled(tmp_path, sources, monkeypatch)
    provide(tmp_path, made, shown)
    known = open_dataset(made / "data/pcam").patches
    train_ids, test_ids = known.id[known.split == "train"], known.id[known.split == "test"]
    for step in steps(page):
        if isinstance(step, str):
            exec(step, {})
            continue
        # The pool holds the test split.
        ids = test_ids if step[0] == "pseudo-label" else train_ids
        words, target = (step[:-2], step[-1]) if step[-2:-1] == [">"] else (step, None)
        if words[0] == "torchrun":
            several = subprocess.run([sys.executable, "-m", "torch.distributed.run", *words[1:]], capture_output=True, text=True)
            assert several.returncode == 0, several.stderr
            continue
        done = command(*adapted(words, tiny, *ids.iloc[:2]))
        assert (done.code, done.problems) == (0, []), step
        if target is not None:
            Path(target).write_text(done.out)


@pytest.mark.parametrize("page", pages(), ids=name)
def test_a_block_of_commands_is_run_or_says_why_not(page):
    for block in blocks(page):
        assert block.not_run or block.commands, "an empty block"


def test_most_commands_are_run():
    assert sum(len(documented(page)) for page in SHOWN) >= 60
    assert {"index.md", "data.md", "compare.md", "few-labels.md"} <= {page.name for page in SHOWN}


def test_the_marker_is_a_first_line_with_a_reason():
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for line in [line for line in text.splitlines() if "not run in tests" in line and line.startswith("#")]:
            assert f"\n```sh\n{line}\n" in text and line.partition(": ")[2], f"{name(page)}: {line}"


def settled(place: Path, sources: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `place` the current folder, with all that can be imported in it."""
    for each in sources.iterdir():
        (place / each.name).symlink_to(each)
    patch.chdir(place)


def provide(place: Path, made: Path, shown: list[list[str]]) -> None:
    """Copy the datasets and runs that a page uses and does not make itself."""
    makes = {made_by(words) for words in shown}
    for folder, of in (("data/pcam", "data/pcam"), ("data/kaggle", "data/pcam"), *((run, run) for run in RUNS)):
        if folder not in makes:
            shutil.copytree(made / of, place / folder)


def made_by(words: list[str]) -> str | None:
    """The dataset or run that a command makes."""
    if words[0] == "data":
        return words[3] if words[1] == "import" else None
    if words[0] not in TRAINING or "--sweep" in words:
        return None
    return words[words.index("--out") + 1] if "--out" in words else f"runs/{words[0]}"


def adapted(words: list[str], tiny, *ids: str) -> list[str]:
    """The command with ids of patches that exist, networks that train in a second, and no more labels than there are."""
    words = [dict(zip(("ID", "ID2"), ids, strict=False)).get(word, word) for word in words]
    for published, small in TINY_BACKBONES.items():
        words = [re.sub(rf"(?<!article-){published}", small, word) for word in words]
    words = [CURVES.get(word, word) for word in words]
    words = [SMALL.get(word.partition("=")[0], word) if "=" in word else word for word in words]
    if words[0] not in TRAINING or "--explain" in words:
        return words
    settings = [*tiny("train.epochs=1", "train.batch_size=8", "predict.d4=true"), "cv.scheme=grouped", "model.image_size=null"]
    settings += [f"pseudo.{each}" for each in ROUNDS] if words[0] == "pseudo-label" else []
    settings += [BUDGET] if {"fixmatch", "pseudo-label"} & set(words[1:]) else []
    shown = {word.partition("=")[0] for word in words if "=" in word}
    return words + [word for each in settings if each.partition("=")[0] not in shown for word in ("--set", each)]
