"""The members of a blend, their weights, and the gain over the best member: as text, and as a section of a page."""

import shlex
from textwrap import wrap
from typing import Any

from pcam_ssl.render.document import Paragraph, Section, Table
from pcam_ssl.render.format import gain_words, three
from pcam_ssl.render.text import aligned

WIDTH = 100
FITTED = (
    "The weights for a fold were fitted on the out-of-fold predictions of the other folds, without the fold's labels. The networks behind"
    " those predictions were trained on the fold's labels, so the weights may contain a trace of them. A plain mean does not."
)


def blend_text(scores: dict[str, Any]) -> str:
    """The table of members and the verdict, from scores.json of a blend."""
    blend = scores["blend"]
    fitted = is_fitted(blend)
    head = ["member", "AUROC", "weight", f"by {blend['nested_over']}, fitted without its labels" if fitted else ""]
    rows = []
    for member in blend["members"]:
        nested = [f"{weight:.2f}" for weight in member["nested"].values()] if fitted else []
        dropped = ["  dropped"] if member["weight"] == 0 else []
        rows.append([member["name"], three(member["auroc"]), three(member["weight"]), " ".join(nested + dropped)])
    table = aligned(Table(head, rows, align="lrrl"))
    return "\n".join([table, "", *(line for note in notes(blend) for line in wrap(note, WIDTH))])


def members_section(scores: dict[str, Any]) -> Section | None:
    """The members of a blend and their weights, None for any other run."""
    if (blend := scores.get("blend")) is None:
        return None
    fitted = is_fitted(blend)
    parts = [f"{blend['nested_over']} {part}" for part in blend["members"][0]["nested"]] if fitted else []
    rows = [
        [
            member["name"],
            three(member["auroc"]),
            "0, dropped" if member["weight"] == 0 else three(member["weight"]),
            *(three(weight) for weight in member["nested"].values() if fitted),
        ]
        for member in blend["members"]
    ]
    return Section(
        f"Members of this blend: {blend['method']}",
        (
            Table(["member", "AUROC out of fold", "weight", *(f"scores {part}" for part in parts)], rows),
            *[Paragraph(note, "note") for note in notes(blend)],
        ),
    )


def notes(blend: dict[str, Any]) -> list[str]:
    """The gain of the blend over its best member, and how its weights were fitted."""
    gain = f"Paired difference to {blend['best']}, the best member on these patches (so its AUROC is a little too good):"
    return [f"{gain} {gain_words(blend['against_best']['auroc'])}.", *([FITTED] if is_fitted(blend) else [])]


def is_fitted(blend: dict[str, Any]) -> bool:
    """Whether weights differ between members or parts, which means that they were fitted to labels."""
    return len({weight for member in blend["members"] for weight in (member["weight"], *member["nested"].values())}) > 1


def blend_command(info: dict[str, Any], out: str) -> str:
    """The command that repeats a blend into `out`, from its run.json."""
    blend = info["blend"]
    specs = [f"{member['run']}:{member['table']}" if member["table"] else member["run"] for member in blend["members"]]
    cap = [] if blend["max_correlation"] is None else ["--max-correlation", f"{blend['max_correlation']:g}"]
    return shlex.join(["pcam-ssl", "blend", *specs, "--method", blend["method"], *cap, "--out", out])


def blend_words(info: dict[str, Any]) -> str:
    """'no network; mean of 3 runs (resnet34, densenet121, metric:knn)', from its run.json."""
    used = [member["name"] for member in info["blend"]["members"] if member["weight"] > 0]
    return f"no network; {info['blend']['method']} of {len(used)} run{'s' * (len(used) > 1)} ({', '.join(used)})"
