"""Joining slides to patches, on id. No torch."""

from pathlib import Path

from pcam_ssl.data.sources.csv_table import known, read_csv, refuse_repeated_rows
from pcam_ssl.data.sources.listing import NAMED, Listing, name_first, places_in
from pcam_ssl.errors import UserError
from pcam_ssl.terminal import warn


def join_slides(found: Listing, csv: Path | str) -> None:
    """Set the slides of a listing from a csv `id,wsi`; ids of the csv without patch are counted, named, and left out.

    Raises UserError where the csv is absent, has other columns, gives an id two slides, or no id matches.
    """
    csv = Path(csv)
    if not csv.is_file():
        raise UserError(f"{csv}: no such file; give --wsi a csv with the columns id,wsi")
    frame = read_csv(csv.read_bytes(), str(csv), ["id", "wsi"])
    refuse_repeated_rows(frame, "wsi", str(csv))
    table = found.records
    rows = places_in(table["id"], frame["id"])
    unmatched = sorted(frame["id"][places_in(frame["id"], table["id"]) < 0])
    if len(unmatched) == len(frame):
        example = f"it has {name_first(unmatched, 1)}, the source {name_first(table['id'], 1)}"
        raise UserError(f"{csv}: none of its {len(frame):,} ids is in {found.source} ({example}); give the csv of these patches")
    if unmatched:
        found.notes["slide_ids_without_patch"] = {"count": len(unmatched), "first": unmatched[:NAMED]}
        warn(f"{csv}: {len(unmatched):,} ids have no patch and are left out: {name_first(unmatched)}")
    table["wsi"] = known(frame["wsi"]).astype("str").array.take(rows, allow_fill=True)
    found.notes["slides_from"] = csv.name


def check_slides(found: Listing) -> None:
    """Raises UserError where some labelled training patches have a slide and others have none: those could not be grouped."""
    table = found.records
    labelled = (table["split"] == "train") & table["label"].notna()
    without = labelled & table["wsi"].isna()
    if without.any() and (labelled & table["wsi"].notna()).any():
        counts = (
            f"{without.sum():,} of {labelled.sum():,} labelled training patches have no slide: {name_first(table['id'][without])}"
        )
        raise UserError(f"{found.source}: {counts}; complete the slide csv, or import without any slides")
    elsewhere = table["wsi"].isna() & ~labelled
    if elsewhere.any() and table["wsi"].notna().any():
        found.notes["patches_without_slide"] = int(elsewhere.sum())
