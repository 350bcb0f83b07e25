"""A blend's members, their weights, and what blending them gained, as text. No torch."""

from textwrap import wrap
from typing import Any

from pcam_ssl.inference.rounds import gain_words

WIDTH = 100


def blend_text(scores: dict[str, Any]) -> str:
    """The table of members and the verdict, from scores.json of a blend."""
    blend = scores["blend"]
    lines = [f"{'member':<28} {'AUROC':>6} {'weight':>7}   by {blend['nested_over']}, fitted without its labels"]
    if not _chosen(blend):
        lines = [f"{'member':<28} {'AUROC':>6} {'weight':>7}"]
    for member in blend["members"]:
        auroc = "-" if member["auroc"] is None else f"{member['auroc']:.3f}"
        dropped = "   dropped" if member["weight"] == 0 else ""
        nested = "   " + " ".join(f"{weight:.2f}" for weight in member["nested"].values()) if _chosen(blend) else ""
        lines.append(f"{member['name']:<28} {auroc:>6} {member['weight']:>7.3f}{nested}{dropped}")
    return "\n".join([*lines, "", *wrap(gain_sentence(blend), WIDTH)])


def gain_sentence(blend: dict[str, Any]) -> str:
    """What the blend gained over its best member, which was chosen on the same patches and so looks a little too good."""
    return (
        f"Against {blend['best']}, the member of best AUROC on these patches, paired: {gain_words(blend['against_best']['auroc'])}."
    )


def _chosen(blend: dict[str, Any]) -> bool:
    """Whether weights differ between members or parts, so that labels had a say."""
    return len({weight for member in blend["members"] for weight in (member["weight"], *member["nested"].values())}) > 1
