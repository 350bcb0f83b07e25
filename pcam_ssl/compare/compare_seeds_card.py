"""Recipes over their seeds as a card of the comparison's page. No torch."""

from typing import Any

from pcam_ssl.compare.verdict import over_seeds
from pcam_ssl.pseudo_labels.verdict import gain_numbers
from pcam_ssl.render.charts import Mark, dot_rows, spanning
from pcam_ssl.render.format import NAMES
from pcam_ssl.render.markup import Markup, card, fold_out, table, tag, with_interval


def seeds_card(comparison: dict[str, Any], scores: tuple[str, ...]) -> Markup | None:
    """Mean and spread over seeds of each recipe, and its difference to the first; None where no recipe was run with several seeds."""
    groups = comparison["groups"]
    if groups is None:
        return None
    first, others = groups[0], groups[1:]
    known = others and all(group["against_first"]["auroc"]["value"] is not None for group in others)
    head = ["recipe", "seeds", "AUROC", f"against {first['name']}", "shows"]
    note = (
        "Differences of means over seeds, paired by seed where both have the same. Their intervals add the spread over resampled slides and the"
        " spread over seeds; of one seed the spread over seeds is not known, and its difference may be the seed's."
    )
    return card(
        "Over seeds",
        _chart(others) if known else None,
        table(head, over_seeds(comparison)),
        tag("p", note, class_="note"),
        fold_out("Mean over seeds, and difference to the first, all scores", _all(groups, scores)),
    )


def _chart(others: list[dict[str, Any]]) -> Markup:
    rows, ends = [], [0.0]
    for group in others:
        gap = group["against_first"]["auroc"]
        said = f"{group['name']}: {gain_numbers(gap)}"
        rows.append((group["name"], [Mark(gap["value"], "c2", said, gap["low"], gap["high"])]))
        ends += [end for end in (gap["value"], gap["low"], gap["high"]) if end is not None]
    alt = "Differences in mean AUROC over seeds; numbers below"
    return dot_rows(rows, spanning("difference in AUROC, mean over seeds", ends), alt, reference=0.0)


def _all(groups: list[dict[str, Any]], scores: tuple[str, ...]) -> Markup:
    rows = []
    for group in groups:
        rows.append([group["name"], *(_mean(group["scores"][name]) for name in scores)])
        if group["against_first"] is not None:
            gaps = (with_interval(group["against_first"][name], signed=True) for name in scores)
            rows.append([f"{group['name']}, difference", *gaps])
    return table(["recipe", *(NAMES[name] for name in scores)], rows)


def _mean(score: dict[str, Any]) -> str:
    if score["value"] is None or score["sd"] is None:
        return "-" if score["value"] is None else f"{score['value']:.3f}"
    return f"{score['value']:.3f} (sd {score['sd']:.3f})"
