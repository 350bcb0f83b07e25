"""An audit as text and as JSON. No torch."""

from textwrap import shorten

import pandas as pd

from pcam_ssl.audit.findings import LEVELS, Audit, Finding

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
    """Findings, the gravest first."""
    return sorted(findings, key=lambda finding: LEVELS.index(finding.level))


def as_text(audit: Audit) -> str:
    """The verdict, a line for each finding, and the tables."""
    slides = f"{audit.dataset.patches['wsi'].nunique():,} slides" if audit.dataset.patches["wsi"].notna().any() else "no slide ids"
    of_run = f" and {audit.run}" if audit.run else ""
    lines = [
        f"{audit.dataset.path}{of_run}: {len(audit.dataset):,} patches, {slides}: {'LEAK: ' if audit.leaks else ''}{headline(audit)}",
        "",
    ]
    lines += [_line(finding) for finding in ranked(audit.findings)]
    lines += ["", *_balance("split", audit.by_split)]
    if audit.by_fold is not None:
        lines += ["", *_balance("fold", audit.by_fold)]
    if audit.doubted is not None and len(audit.doubted):
        lines += ["", *_doubted(audit.doubted)]
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    rest = f": {'; '.join(finding.examples)}" if finding.examples else ""
    hidden = finding.count - len(finding.examples)
    more = f"; and {hidden:,} more" if finding.examples and hidden else ""
    move = f". Next: {finding.move}" if finding.move else ""
    return (
        f"{finding.level.upper() if finding.level == 'leak' else finding.level:<8}{finding.check}: {finding.what}{rest}{more}{move}"
    )


def _balance(name: str, table: pd.DataFrame) -> list[str]:
    head = f"{name:<8}{'patches':>9}{'slides':>8}{'tumor':>8}{'OD red':>8}{'green':>8}{'blue':>8}{'H':>8}{'E':>8}"
    lines = [f"{head}   (mean optical density, hematoxylin, eosin)"]
    for key, row in table.iterrows():
        share = "-" if pd.isna(row["tumor_share"]) else f"{row['tumor_share']:.1%}"
        slides = f"{row['slides']:,.0f}" if row["slides"] else "-"
        stain = "".join(f"{row[column]:>8.3f}" for column in ("od_r", "od_g", "od_b", "stain_h", "stain_e"))
        lines.append(f"{key!s:<8}{row['patches']:>9,.0f}{slides:>8}{share:>8}{stain}")
    return lines


def _doubted(doubted: pd.DataFrame) -> list[str]:
    lines = [f"{'suspicious labels':<44}{'label':>6}{'doubt':>7}{'network':>9}{'kNN':>6}{'loss':>7}  slide"]
    for row in doubted.head(LISTED).itertuples():
        knn = "-" if pd.isna(row.doubt_knn) else f"{row.doubt_knn:.2f}"
        slide = "-" if pd.isna(row.wsi) else shorten(row.wsi, 40, placeholder="…")
        lines.append(f"{row.id:<44}{row.label:>6}{row.doubt:>7.2f}{row.doubt_network:>9.2f}{knn:>6}{row.loss:>7.2f}  {slide}")
    if len(doubted) > LISTED:
        lines.append(f"and {len(doubted) - LISTED:,} more (all with --json)")
    return lines


def as_dict(audit: Audit) -> dict:
    """Everything, as plain values: all groups of exact duplicates, up to 1,000 pairs of a kind, all doubted labels."""
    ids = audit.dataset.patches["id"].to_numpy()
    findings = []
    for finding in ranked(audit.findings):
        said = {name: getattr(finding, name) for name in ("level", "check", "what", "count", "move")}
        findings.append(
            said | {"examples": list(finding.examples), "patches": [[str(ids[row]) for row in rows] for rows in finding.rows]}
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
