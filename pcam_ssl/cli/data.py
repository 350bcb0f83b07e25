"""`pcam-ssl data`: bring patches in, and look at them."""

from pathlib import Path
from typing import Annotated

import typer

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
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out bad images and unmatched ids, and count them.")] = False,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Accept files whose MD5 is not the published one.")] = False,
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding threads (default: one a core, at most 8).")] = None,
) -> None:
    """Pack patches into a DATASET folder, once: every other command reads that."""
    from pcam_ssl.data.importing import import_source

    packed = import_source(source, dataset, wsi=wsi, skip_bad=skip_bad, workers=workers, verify=not no_verify)
    counts = [
        f"{split} {sum(labels.values()):,} ({', '.join(f'{n:,} {label}' for label, n in labels.items() if n)})"
        for split, labels in packed.manifest["counts"].items()
    ]
    slides = f"{packed.manifest['n_slides']:,} slides" if packed.manifest["n_slides"] else "no slide ids"
    typer.echo(f"{dataset}: {len(packed):,} patches of {packed.size_px} px, {slides}")
    typer.echo(f"{'; '.join(counts)}")
    typer.echo(f"next: pcam-ssl data show {dataset}, then pcam-ssl baseline --data {dataset}")


@app.command()
def download(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to fetch: pcam.", show_default=False)],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")] = Path("data/pcam-download"),
    url: Annotated[str | None, typer.Option(help="Another address that holds the files (default: Zenodo record 2546921).")] = None,
) -> None:
    """Fetch the PatchCamelyon files (7 GB); run it again to continue a broken transfer."""
    from pcam_ssl.data.download import URL, download_pcam
    from pcam_ssl.errors import UserError

    if name != "pcam":
        raise UserError(f"{name}: not a dataset that can be fetched; write `pcam-ssl data download pcam`")
    files = download_pcam(folder, URL if url is None else url)
    typer.echo(f"{folder}: {len(files)} files, MD5 verified")
    typer.echo(f"next: pcam-ssl data import {folder} data/pcam")


@app.command()
def show(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="A dataset folder.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Write a contact sheet of patches.")] = None,
) -> None:
    """Count patches by split, label, and slide."""
    import json

    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.show import as_text, contact_sheet, summarise
    from pcam_ssl.files import check_target

    if sheet is not None:
        check_target("--sheet", sheet, ".png")
    opened = open_dataset(dataset)
    summary = summarise(opened)
    if sheet is not None:
        contact_sheet(opened, sheet)
        summary["sheet"] = str(sheet)
    typer.echo(json.dumps(summary, indent=2) if as_json else as_text(summary))
    if sheet is not None and not as_json:
        typer.echo(f"contact sheet: {sheet}")
