"""An audit as a page, as text and as JSON."""

from pathlib import Path
from textwrap import shorten

import pandas as pd

from pcam_ssl import __version__
from pcam_ssl.audit.findings import LEVELS, Audit, Finding
from pcam_ssl.errors import UserError
from pcam_ssl.files import write_text
from pcam_ssl.render.markup import Markup, card, fold_out, join, table, tag
from pcam_ssl.render.page import document
from pcam_ssl.render.thumbnails import thumbnail

GROUPS, IN_GROUP, DOUBTED = 12, 6, 60
LABELS = {1: "tumor", 0: "normal"}
LOOKS = {"leak": ("bad", "Leak"), "problem": ("bad", "Problem"), "suspect": ("care", "Look here")}
STYLE = Path(__file__).with_name("audit.css")


def write_page(path: Path | str, audit: Audit) -> None:
    """Write the page. Raises UserError where the folder cannot be written."""
    try:
        write_text(path, page(audit))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def page(audit: Audit) -> str:
    """The whole page; the same audit gives the same text."""
    name = f"{audit.dataset.name}: pcam-ssl data audit"
    findings = ranked(audit.findings)
    pressing = [finding for finding in findings if finding.level in LOOKS and finding.check != "suspicious labels"]
    body = [
        tag("header", tag("h1", name)),
        _verdict(audit),
        [_finding(audit, finding) for finding in pressing],
        _doubted(audit),
        _balance(audit),
        _notes(audit, [finding for finding in findings if finding.level == "note"]),
        _fine([finding for finding in findings if finding.level == "ok"]),
        tag("footer", f"Made by pcam-ssl {__version__} for research. Not for diagnosis."),
    ]
    return document(name, body, STYLE.read_text(encoding="utf-8"))


def _verdict(audit: Audit) -> Markup:
    level, badge = LOOKS.get(audit.level, ("good", "No leak"))
    slides = audit.dataset.patches["wsi"].nunique()
    known = [
        ("dataset", audit.dataset.path),
        ("patches", f"{len(audit.dataset):,}"),
        ("slides", f"{slides:,}" if slides else "unknown"),
    ]
    known += [("run", audit.run)] if audit.run else []
    facts = tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in known], class_="shown")
    remarks = [tag("li", finding.what) for finding in ranked(audit.findings) if finding.level in LOOKS]
    words = [
        tag("p", tag("span", badge, class_="badge"), class_="lead"),
        tag("p", f"{_sentence(headline(audit))}.", class_="headline"),
        tag("ul", remarks, class_="remarks") if remarks else None,
    ]
    return tag("section", tag("div", words), facts, class_=f"verdict {level}", aria_label="Verdict")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _finding(audit: Audit, finding: Finding) -> Markup:
    level, badge = LOOKS[finding.level]
    title = join([tag("span", badge, class_=f"badge {level}"), _sentence(finding.check)])
    return card(title, *_told(finding), _groups(audit, finding))


def _told(finding: Finding) -> list[Markup | None]:
    examples = f"First: {'; '.join(finding.examples)}" if finding.examples else None
    return [
        tag("p", f"{_sentence(finding.what)}."),
        tag("p", examples, class_="note examples") if examples else None,
        tag("p", tag("b", "Next: "), finding.move, ".") if finding.move else None,
    ]


def _groups(audit: Audit, finding: Finding) -> Markup | None:
    if not finding.rows:
        return None
    groups = [tag("div", [_patch(audit, row) for row in rows[:IN_GROUP]], class_="group") for rows in finding.rows[:GROUPS]]
    hidden = len(finding.rows) - GROUPS
    rest = tag("p", f"{hidden:,} more are not shown; --json names them.", class_="note") if hidden > 0 else None
    return join([tag("div", groups, class_="patches"), rest])


def _patch(audit: Audit, row: int, *more: str) -> Markup:
    patch = audit.dataset.patches.iloc[row]
    label = "unlabelled" if pd.isna(patch["label"]) else LABELS[int(patch["label"])]
    slide = [] if pd.isna(patch["wsi"]) else [f"slide {patch['wsi']}"]
    return thumbnail(audit.dataset.pixels[row], patch["id"], f"{patch['split']}, {label}", *slide, *more)


def _doubted(audit: Audit) -> Markup | None:
    if audit.doubted is None or audit.doubted.empty:
        return None
    finding = next(finding for finding in audit.findings if finding.check == "suspicious labels")
    shown = []
    for row, doubted in zip(finding.rows, audit.doubted.head(DOUBTED).itertuples(), strict=False):
        knn = "" if pd.isna(doubted.doubt_knn) else f", kNN {doubted.doubt_knn:.2f}"
        shown.append(_patch(audit, row[0], f"doubt {doubted.doubt:.2f}", f"network {doubted.doubt_network:.2f}{knn}"))
    hidden = len(audit.doubted) - len(shown)
    note = "Doubt: the prob given to the other class, of the network and of kNN, multiplied; most suspicious first."
    rest = f" {hidden:,} more with --json." if hidden else ""
    title = join([tag("span", "Look here", class_="badge care"), "Suspicious labels"])
    return card(title, *_told(finding)[::2], tag("p", note + rest, class_="note"), tag("div", shown, class_="patches"))


def _balance(audit: Audit) -> Markup:
    head = ["patches", "slides", "tumor", "OD red", "OD green", "OD blue", "hematoxylin", "eosin"]
    parts = [table(["split", *head], _rows(audit.by_split))]
    if audit.by_fold is not None:
        parts.append(table(["fold", *head], _rows(audit.by_fold)))
    return card("Tumor share and stain", *parts, tag("p", "OD: mean optical density of a channel.", class_="note"))


def _rows(balance: pd.DataFrame) -> list[list[str]]:
    rows = []
    for name, row in balance.iterrows():
        share = "-" if pd.isna(row["tumor_share"]) else f"{row['tumor_share']:.1%}"
        stain = [f"{row[column]:.3f}" for column in ("od_r", "od_g", "od_b", "stain_h", "stain_e")]
        rows.append([str(name), f"{row['patches']:,.0f}", f"{row['slides']:,.0f}" if row["slides"] else "-", share, *stain])
    return rows


def _notes(audit: Audit, findings: list[Finding]) -> Markup | None:
    if not findings:
        return None
    told = []
    for finding in findings:
        patches = fold_out("Patches", _groups(audit, finding)) if finding.rows else None
        told.append(tag("div", *_told(finding), patches, class_="told"))
    return card("Good to know", *told)


def _fine(findings: list[Finding]) -> Markup | None:
    if not findings:
        return None
    return card(
        "Checked and fine", tag("ul", [tag("li", f"{finding.check}: {finding.what}") for finding in findings], class_="plain")
    )


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
    lines += ["", *_balance_text("split", audit.by_split)]
    if audit.by_fold is not None:
        lines += ["", *_balance_text("fold", audit.by_fold)]
    if audit.doubted is not None and len(audit.doubted):
        lines += ["", *_doubted_text(audit.doubted)]
    return "\n".join(lines)


def _line(finding: Finding) -> str:
    rest = f": {'; '.join(finding.examples)}" if finding.examples else ""
    hidden = finding.count - len(finding.examples)
    more = f"; and {hidden:,} more" if finding.examples and hidden else ""
    move = f". Next: {finding.move}" if finding.move else ""
    return (
        f"{finding.level.upper() if finding.level == 'leak' else finding.level:<8}{finding.check}: {finding.what}{rest}{more}{move}"
    )


def _balance_text(name: str, table: pd.DataFrame) -> list[str]:
    head = f"{name:<8}{'patches':>9}{'slides':>8}{'tumor':>8}{'OD red':>8}{'green':>8}{'blue':>8}{'H':>8}{'E':>8}"
    lines = [f"{head}   (mean optical density, hematoxylin, eosin)"]
    for key, row in table.iterrows():
        share = "-" if pd.isna(row["tumor_share"]) else f"{row['tumor_share']:.1%}"
        slides = f"{row['slides']:,.0f}" if row["slides"] else "-"
        stain = "".join(f"{row[column]:>8.3f}" for column in ("od_r", "od_g", "od_b", "stain_h", "stain_e"))
        lines.append(f"{key!s:<8}{row['patches']:>9,.0f}{slides:>8}{share:>8}{stain}")
    return lines


def _doubted_text(doubted: pd.DataFrame) -> list[str]:
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
