"""Search results as aligned plain text, the same in a pipe, and the sentences that page and text share. No torch."""

from typing import Any

from pcam_ssl.neighbors.search_result import SearchResult

LABELS = {1: "tumor", 0: "normal", None: "unlabelled"}
HEAD = ("rank", "cosine", "label", "prob", "split", "slide", "id")


def neighbours_text(result: SearchResult) -> str:
    """A block for each query: what it is, what was left out, its neighbours by rank."""
    return "\n\n".join("\n".join(_block(query, result.facts["k"])) for query in result.each())


def _block(query: dict[str, Any], k: int) -> list[str]:
    known = [LABELS[query["label"]], f"slide {query['wsi'] or 'unknown'}"]
    known += [query["split"]] if query["split"] else []
    known += [f"prob {query['prob']:.3f}"] if query["prob"] is not None else []
    lines = _table([_cells(neighbour) for neighbour in query["neighbours"]]) if query["neighbours"] else []
    short = shortfall_text(query, k)
    return [f"query {name_of(query)}: {', '.join(known)}", f"left out: {left_out_text(query)}", *lines, *([short] if short else [])]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in (HEAD, *rows)) for column in range(len(HEAD))]
    lines = [[_aligned(*cell) for cell in zip(row, widths, HEAD, strict=True)] for row in (HEAD, *rows)]
    return ["  ".join(cells).rstrip() for cells in lines]


def _cells(neighbour: dict[str, Any]) -> tuple[str, ...]:
    prob = "-" if neighbour["prob"] is None else f"{neighbour['prob']:.3f}"
    slide = neighbour["wsi"] or "-"
    return (
        str(neighbour["rank"]),
        f"{neighbour['cosine']:.4f}",
        LABELS[neighbour["label"]],
        prob,
        neighbour["split"],
        slide,
        neighbour["id"],
    )


def _aligned(text: str, width: int, name: str) -> str:
    return text.rjust(width) if name in ("rank", "cosine", "prob") else text.ljust(width)


def name_of(query: dict[str, Any]) -> str:
    """The query's id, or the file of its image."""
    return query["id"] or query["image"]


def left_out_text(query: dict[str, Any]) -> str:
    """Which gallery patches the query could not find, counted."""
    counts = query["left_out"]
    parts = ["the patch itself"] if counts["itself"] else []
    if counts["own_slide"]:
        others = "others" if counts["itself"] else "patches"
        parts.append(f"{counts['own_slide']:,} {others} of its slide {query['wsi']}")
    if counts["duplicates"]:
        parts.append(f"{counts['duplicates']:,} exact or near duplicate{'s' if counts['duplicates'] > 1 else ''}")
    return ", ".join(parts) or "nothing"


def shortfall_text(query: dict[str, Any], k: int) -> str | None:
    """Why there are fewer than k neighbours, or None where there are k."""
    n = len(query["neighbours"])
    return None if n == k else f"only {n:,} of {k:,}: all other patches of the gallery are left out"
