"""`pcam-ssl data`: bring patches in, and look at them."""

import json
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from typer import Argument, Option

app = typer.Typer(no_args_is_help=True, help="Bring patches in, and look at them.")

Target = Annotated[Path, typer.Argument(metavar="DATASET", help="Folder to make.", show_default=False)]


@app.command("import")
def import_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Kaggle zip or folder, PCam HDF5 folder, Hugging Face parquet, image folder, or image.", show_default=False
        ),
    ],
    dataset: Target,
    wsi: Annotated[Path | None, typer.Option(metavar="CSV", help="Slides: a csv with the columns id,wsi, joined on id.")] = None,
    wsi_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Slides from paths of images: groups (?P<wsi>...) and, where there, x, y, label, split. IDC, Camelyon17-WILDS and BreakHis need none.",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad images and unmatched ids, and count them.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Accept files whose MD5 is not the published one.")] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Decoding processes (default: one a core, at most 8; 1 below 10,000 patches).")
    ] = None,
) -> None:
    """Pack patches into a DATASET folder, once: every other command reads that."""
    from pcam_ssl.api import import_dataset

    packed = import_dataset(
        source, dataset, wsi=wsi, wsi_pattern=wsi_pattern, skip_bad=skip_bad, verify=not no_verify, workers=workers
    )
    slides = f"{packed.manifest['n_slides']:,} slides" if packed.manifest["n_slides"] else "no slide ids"
    print(f"{dataset}: {len(packed):,} patches of {packed.size_px} px, {slides}")
    print(_counted(packed.manifest["counts"]))
    print(f"next: pcam-ssl data show {quote(str(dataset))}, then pcam-ssl baseline --data {quote(str(dataset))}")


@app.command()
def tile(
    slides: Annotated[
        list[Path],
        Argument(metavar="SLIDE", help="SVS, NDPI, MRXS, DICOM, tiled TIFF or OME-TIFF files.", show_default=False),
    ],
    dataset: Target,
    size: Annotated[int, Option(min=32, help="edge of a patch in px")] = 96,
    mpp: Annotated[float, Option(help="microns per pixel of the patches")] = 0.97,
    stride: Annotated[int | None, Option(min=1, help="px from one patch to the next (default: --size)", show_default=False)] = None,
    tissue: Annotated[float, Option(help="share of a patch that must be tissue")] = 0.5,
    annotations: Annotated[
        Path | None,
        Option(metavar="PATH", help="GeoJSON or ASAP XML files with the stems of their slides: their folder, or one file"),
    ] = None,
    classes: Annotated[
        str | None, Option(metavar="NAME=0|1,...", help="labels of further classes, such as Stroma=0,DCIS=1; 1 is tumor")
    ] = None,
    assume_mpp: Annotated[
        float | None, Option(help="microns per pixel of level 0, for slides that do not say it", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, Option(min=1, help="reading threads (default: one a core, at most 8)", show_default=False)
    ] = None,
) -> None:
    """Cut whole slides into patches on tissue, labelled where there are annotations; run it again to go on after a kill.

    Example: pcam-ssl data tile slides/*.svs data/mine --annotations annotations/
    """
    from pcam_ssl.api import tile
    from pcam_ssl.slides.annotations import parse_classes

    options = {"stride": stride, "tissue": tissue, "annotations": annotations, "assume_mpp": assume_mpp, "workers": workers}
    named = None if classes is None else parse_classes(classes)
    made = tile(slides, dataset, size=size, mpp=mpp, classes=named, **options)
    print(f"{dataset}: {len(made):,} patches of {made.size_px} px, {made.manifest['n_slides']:,} slides")
    print(_counted(made.manifest["counts"]))
    print(f"look at {dataset}/slides/*.png: the tissue that was found")
    print(f"next: pcam-ssl data show {quote(str(dataset))} --sheet sheet.png")


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to fetch: pcam or kaggle.", show_default=False)],
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="DIR",
            help="Where the files go (default: data/pcam-download, data/pcam-sample or data/kaggle-download).",
            show_default=False,
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(metavar="N", help="Only the first N patches of each split of pcam (24 kB each).", show_default=False),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(help="Another address that holds the files (default: Zenodo record 2546921; with --sample, Hugging Face)."),
    ] = None,
) -> None:
    """Fetch PatchCamelyon, or Kaggle's data by the command kaggle (7 GB each); run it again to continue a broken transfer.

    Example: pcam-ssl data download pcam --sample 1000
    """
    from pcam_ssl.api import download

    files = download(name, folder, sample=sample, url=url)
    place = files[0].parent
    if name == "kaggle":
        print(files[0])
        print(f"next: pcam-ssl data import {quote(str(files[0]))} data/kaggle")
        return
    print(
        f"{place}: {len(files)} files" + (", MD5 verified" if sample is None else f", the first {sample:,} patches of each split")
    )
    print(f"next: pcam-ssl data import {quote(str(place))} data/pcam")


@app.command()
def show(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write a contact sheet of patches.")] = None,
) -> None:
    """Count patches by split, label, and slide."""
    from pcam_ssl.api import show
    from pcam_ssl.data.show import as_text

    summary = show(dataset, sheet=sheet)
    print(json.dumps(summary, indent=2) if as_json else as_text(summary))
    if sheet is not None and not as_json:
        print(f"contact sheet: {sheet}")


@app.command()
def synth(
    dataset: Annotated[Path, Argument(metavar="DATASET", help="folder to make")],
    slides: Annotated[int, Option(min=1, max=10_000, help="slides in train")] = 24,
    patches: Annotated[int, Option(min=1, max=100_000, help="patches of each slide")] = 40,
    test_slides: Annotated[int, Option(min=0, max=10_000, help="slides in test")] = 6,
    valid_slides: Annotated[int, Option(min=0, max=10_000, help="slides in valid, for cv.scheme official")] = 0,
    size: Annotated[int, Option(min=32, max=256, help="edge of a patch in px")] = 96,
    stain_shift: Annotated[float, Option(min=0, max=3, help="how much stain differs between slides; 0: not at all")] = 1.0,
    tumor_signal: Annotated[
        float, Option(min=1, max=3, help="how much larger and darker tumor nuclei are; at 2 a small network learns them soon")
    ] = 1.0,
    coarse: Annotated[
        float,
        Option(min=0, max=0.5, help="share of tumor patches that show no tumor, as in coarse annotations; only their slide tells"),
    ] = 0.0,
    seed: Annotated[int, Option(min=0, max=2**31 - 1, help="another seed draws other slides")] = 0,
    label_test: Annotated[bool, Option("--label-test", help="give the test patches labels, which Kaggle keeps")] = False,
) -> None:
    """Draw small synthetic H&E slides, on which folds that tear slides flatter the score.

    Example: pcam-ssl data synth data/synthetic --slides 24
    """
    from pcam_ssl.api import synth

    written = synth(
        dataset,
        slides=slides,
        patches=patches,
        test_slides=test_slides,
        valid_slides=valid_slides,
        size=size,
        stain_shift=stain_shift,
        tumor_signal=tumor_signal,
        coarse=coarse,
        seed=seed,
        label_test=label_test,
    )
    counts = ", ".join(f"{split} {sum(count.values())}" for split, count in written.manifest["counts"].items())
    print(f"{dataset}: {len(written)} synthetic patches of {written.manifest['n_slides']} slides ({counts})")


@app.command()
def audit(
    dataset: Annotated[Path, Argument(metavar="DATASET", help="a dataset folder", show_default=False)],
    run: Annotated[
        Path | None, Option("--run", metavar="RUN", help="also audit the folds, embeddings and labels of this run")
    ] = None,
    near_bits: Annotated[int, Option("--near-bits", min=0, max=6, help="how many bits near duplicates may differ in")] = 3,
    html: Annotated[Path | None, Option("--html", metavar="FILE.html", help="write a page with thumbnails")] = None,
    as_json: Annotated[bool, Option("--json", help="print everything as JSON")] = False,
    device: Annotated[str, Option("--device", help="where embeddings are computed: auto, cpu, cuda or mps")] = "auto",
) -> None:
    """Look for slides and patches in two places, conflicting and suspicious labels, and slides that stand apart; exit 3 on a leak.

    Example: pcam-ssl data audit data/kaggle --run runs/metric-train --html audit.html
    """
    from pcam_ssl.api import audit
    from pcam_ssl.audit.report import as_dict, as_text

    found = audit(dataset, run=run, near_bits=near_bits, html=html, device=device)
    print(json.dumps(as_dict(found), indent=2) if as_json else as_text(found))
    if html is not None and not as_json:
        print(f"page {html}")
    found.raise_leaks()


@app.command()
def features(
    dataset: Annotated[Path | None, Argument(metavar="DATASET", help="default $PCAM_SSL_DATA, else data/pcam")] = None,
    prune: Annotated[bool, Option("--prune", help="remove them; runs keep their heads and make the features anew")] = False,
    as_json: Annotated[bool, Option("--json", help="print them as JSON")] = False,
) -> None:
    """Cached features of frozen backbones: which there are and how large, or --prune to remove them.

    Example: pcam-ssl data features data/pcam --prune
    """
    from pcam_ssl.api import features as cached_features
    from pcam_ssl.render.document import Table
    from pcam_ssl.render.format import size
    from pcam_ssl.render.text import aligned

    found = cached_features(dataset, prune=prune)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    if not found["sets"]:
        print(f"{found['folder']}: no features")
        return
    rows = [[each["name"], f"{each['image_size'] or '-'}", f"{each['views']}", size(each["bytes"])] for each in found["sets"]]
    print(aligned(Table(["backbone", "image px", "views", "size"], rows, align="lrrr")))
    print(f"{'removed from' if prune else 'in'} {found['folder']}: {size(sum(each['bytes'] for each in found['sets']))}")


def _counted(counts: dict[str, dict[str, int]]) -> str:
    """Patches by split and label, in a line."""
    return "; ".join(
        f"{split} {sum(labels.values()):,} ({', '.join(f'{n:,} {label}' for label, n in labels.items() if n)})"
        for split, labels in counts.items()
    )
