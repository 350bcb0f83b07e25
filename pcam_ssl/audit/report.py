"""An audit as a document: a page, the text of a terminal, and JSON."""

from pathlib import Path
from textwrap import shorten

import pandas as pd

from pcam_ssl import __version__
from pcam_ssl.audit.findings import LEVELS, Audit, Finding
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_text
from pcam_ssl.render import html
from pcam_ssl.render.document import (
    Block,
    Card,
    Details,
    Document,
    Facts,
    Gallery,
    Group,
    Items,
    Line,
    Paragraph,
    Section,
    Strong,
    Table,
    Verdict,
)
from pcam_ssl.render.format import LABELS, count, decimals, sentence
from pcam_ssl.render.text import aligned

GROUPS, IN_GROUP, DOUBTED = 12, 6, 60
LOOKS = {"leak": ("bad", "Leak"), "problem": ("bad", "Problem"), "suspect": ("care", "Check")}
SUSPICIOUS = "suspicious labels"
SIDE_PX = 112
OD_NOTE = "OD: mean optical density of a channel."


def write_page(path: Path | str, audit: Audit) -> None:
    """Write the page. Raises UserError where the folder cannot be written."""
    try:
        write_text(path, page(audit))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def page(audit: Audit) -> str:
    """The whole page; the same audit gives the same text."""
    return html.page(audit_document(audit))


def audit_document(audit: Audit) -> Document:
    """The verdict, findings with their patches, suspicious labels, balance, and the checks that passed."""
    findings = ranked(audit.findings)
    pressing = [finding for finding in findings if finding.level in LOOKS and finding.check != SUSPICIOUS]
    body = (
        _verdict(audit),
        *(_finding(audit, finding) for finding in pressing),
        _suspicious(audit),
        Section("Tumor share and stain", (*_balance_tables(audit), Paragraph(OD_NOTE, "note"))),
        _notes(audit, [finding for finding in findings if finding.level == "note"]),
        _fine([finding for finding in findings if finding.level == "ok"]),
    )
    footer = f"Made by pcam-ssl {__version__} for research. Not for diagnosis."
    return Document(f"{audit.dataset.name}: pcam-ssl data audit", body, footer=footer)


def _verdict(audit: Audit) -> Verdict:
    level, badge = LOOKS.get(audit.level, ("good", "No leak"))
    slides = audit.dataset.patches["wsi"].nunique()
    known = [
        ("dataset", audit.dataset.path),
        ("patches", f"{len(audit.dataset):,}"),
        ("slides", f"{slides:,}" if slides else "unknown"),
    ]
    known += [("run", audit.run)] if audit.run else []
    remarks = [finding.what for finding in ranked(audit.findings) if finding.level in LOOKS]
    return Verdict(level, badge, f"{sentence(headline(audit))}.", remarks=remarks, shown=(Facts(known),))


def _finding(audit: Audit, finding: Finding) -> Section:
    blocks = (_what(finding), _examples(finding), _next(finding), *_groups(audit, finding))
    return Section(sentence(finding.check), blocks, badge=LOOKS[finding.level])


def _what(finding: Finding) -> Paragraph:
    return Paragraph(f"{sentence(finding.what)}.")


def _examples(finding: Finding) -> Paragraph | None:
    return Paragraph(f"Examples: {'; '.join(finding.examples)}", "note") if finding.examples else None


def _next(finding: Finding) -> Paragraph | None:
    return Paragraph((Strong("Next step: "), finding.move, ".")) if finding.move else None


def _groups(audit: Audit, finding: Finding) -> list[Block]:
    """The patches of a finding, each group in one frame."""
    if not finding.rows:
        return []
    groups = [Gallery([_card(audit, row) for row in rows[:IN_GROUP]], "group") for rows in finding.rows[:GROUPS]]
    hidden = len(finding.rows) - GROUPS
    rest = [Paragraph(f"{hidden:,} more are not shown; --json lists them.", "note")] if hidden > 0 else []
    return [Group(groups, "patches"), *rest]


def _card(audit: Audit, row: int, *more: str) -> Card:
    patch = audit.dataset.patches.iloc[row]
    label = LABELS[None if pd.isna(patch["label"]) else int(patch["label"])]
    slide = [] if pd.isna(patch["wsi"]) else [f"slide {patch['wsi']}"]
    shown = html.picture(audit.dataset.pixels[row], f"patch {patch['id']}", side_px=SIDE_PX, title=patch["id"])
    # The alt text of the picture holds the full id.
    name = Line(html.shorten(patch["id"]), title=patch["id"], strong=True, silent=True)
    return Card((shown,), (name, f"{patch['split']}, {label}", *slide, *more))


def _suspicious(audit: Audit) -> Section | None:
    if audit.doubted is None or audit.doubted.empty:
        return None
    finding = next(finding for finding in audit.findings if finding.check == SUSPICIOUS)
    shown = []
    for row, doubted in zip(finding.rows, audit.doubted.head(DOUBTED).itertuples(), strict=False):
        knn = "" if pd.isna(doubted.doubt_knn) else f", kNN {doubted.doubt_knn:.2f}"
        shown.append(_card(audit, row[0], f"doubt {doubted.doubt:.2f}", f"network {doubted.doubt_network:.2f}{knn}"))
    hidden = len(audit.doubted) - len(shown)
    note = "Doubt: the prob of the other class by the network times that by kNN, the most suspicious first."
    rest = f" {hidden:,} more with --json." if hidden else ""
    blocks = (_what(finding), _next(finding), Paragraph(note + rest, "note"), Gallery(shown, "patches"))
    return Section(sentence(SUSPICIOUS), blocks, badge=LOOKS["suspect"])


def _balance_tables(audit: Audit) -> list[Table]:
    """Tumor share and stain of each split, and of each fold where a run was audited."""
    tables = [_balance_table("split", audit.by_split)]
    return [*tables, _balance_table("fold", audit.by_fold)] if audit.by_fold is not None else tables


def _balance_table(part: str, balance: pd.DataFrame) -> Table:
    rows = []
    for name, row in balance.iterrows():
        share = "-" if pd.isna(row["tumor_share"]) else f"{row['tumor_share']:.1%}"
        stain = [decimals(row[column]) for column in ("od_r", "od_g", "od_b", "stain_h", "stain_e")]
        rows.append([str(name), count(int(row["patches"])), count(int(row["slides"]) or None), share, *stain])
    return Table((part, "patches", "slides", "tumor", "OD red", "OD green", "OD blue", "hematoxylin", "eosin"), rows)


def _notes(audit: Audit, findings: list[Finding]) -> Section | None:
    if not findings:
        return None
    groups = []
    for finding in findings:
        patches = Details("Patches", _groups(audit, finding)) if finding.rows else None
        groups.append(Group((_what(finding), _examples(finding), _next(finding), patches), "told"))
    return Section("Notes", groups)


def _fine(findings: list[Finding]) -> Section | None:
    if not findings:
        return None
    return Section("Checks passed", (Items([f"{finding.check}: {finding.what}" for finding in findings], "listed"),))


LISTED = 20
HEADLINES = {
    "leak": "scores on this data are too good until this is mended",
    "problem": "no leak found, but a problem to mend before training",
    "suspect": "no leak found; look at the suspects",
}


def headline(audit: Audit) -> str:
    """The verdict in a few words."""
    known = audit.dataset.patches["wsi"].notna().any()
    blind = "" if known or audit.leaks else "; slides are unknown, so shared slides cannot be ruled out"
    return HEADLINES.get(audit.level, "no leak found") + blind


def ranked(findings: list[Finding]) -> list[Finding]:
    """Findings, the most severe first."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def as_text(audit: Audit) -> str:
    """The verdict, a line for each finding, and the tables."""
    slides = f"{audit.dataset.patches['wsi'].nunique():,} slides" if audit.dataset.patches["wsi"].notna().any() else "no slide ids"
    of_run = f" and {audit.run}" if audit.run else ""
    leak = "LEAK: " if audit.leaks else ""
    parts = [
        f"{audit.dataset.path}{of_run}: {len(audit.dataset):,} patches, {slides}: {leak}{headline(audit)}",
        "\n".join(_line(finding) for finding in ranked(audit.findings)),
        *(aligned(table) for table in _balance_tables(audit)),
    ]
    parts[-1] += f"\n{OD_NOTE}"
    if audit.doubted is not None and len(audit.doubted):
        parts.append(aligned(_suspicious_table(audit.doubted)))
        if len(audit.doubted) > LISTED:
            parts[-1] += f"\nand {len(audit.doubted) - LISTED:,} more (all with --json)"
    return "\n\n".join(parts)


def _line(finding: Finding) -> str:
    rest = f": {'; '.join(finding.examples)}" if finding.examples else ""
    hidden = finding.count - len(finding.examples)
    more = f"; and {hidden:,} more" if finding.examples and hidden else ""
    move = f". Next: {finding.move}" if finding.move else ""
    return (
        f"{finding.level.upper() if finding.level == 'leak' else finding.level:<8}{finding.check}: {finding.what}{rest}{more}{move}"
    )


def _suspicious_table(doubted: pd.DataFrame) -> Table:
    rows = []
    for row in doubted.head(LISTED).itertuples():
        knn = "-" if pd.isna(row.doubt_knn) else f"{row.doubt_knn:.2f}"
        slide = "-" if pd.isna(row.wsi) else shorten(row.wsi, 40, placeholder="…")
        rows.append([row.id, row.label, f"{row.doubt:.2f}", f"{row.doubt_network:.2f}", knn, f"{row.loss:.2f}", slide])
    return Table((SUSPICIOUS, "label", "doubt", "network", "kNN", "loss", "slide"), rows, align="lrrrrrl")


def as_dict(audit: Audit) -> dict:
    """Everything, as plain values: all groups of exact duplicates, up to 1,000 pairs of a kind, all doubted labels."""
    ids = audit.dataset.patches["id"].to_numpy()
    findings = []
    for finding in ranked(audit.findings):
        values = {name: getattr(finding, name) for name in ("level", "check", "what", "count", "move")}
        findings.append(
            values | {"examples": list(finding.examples), "patches": [[str(ids[row]) for row in rows] for rows in finding.rows]}
        )
    return {
        "dataset": str(audit.dataset.path),
        "run": audit.run,
        "verdict": headline(audit),
        "leaks": len(audit.leaks),
        "findings": findings,
        "by_split": _records(audit.by_split.rename_axis("split").reset_index()),
        "by_fold": None if audit.by_fold is None else _records(audit.by_fold.rename_axis("fold").reset_index()),
        "suspicious_labels": None if audit.doubted is None else _records(audit.doubted),
    }


def _records(table: pd.DataFrame) -> list[dict]:
    table = table.astype(object)
    return table.where(table.notna(), None).to_dict("records")
