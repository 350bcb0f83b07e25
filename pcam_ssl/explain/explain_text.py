"""What explains a patch's score, and where a whole fold looks, in words: the same in a pipe and on the page. No torch."""

from typing import Any

from pcam_ssl.explain.attribution_facts import CLASSES, Explained
from pcam_ssl.explain.centre import even_share

FLAT = "no part of the patch speaks for the call: the map is flat"


def label_of(label: int | None) -> str:
    """tumor, normal, or unlabelled."""
    return "unlabelled" if label is None else CLASSES[label]


def percent(share: float) -> str:
    """'34 %'."""
    return f"{100 * share:.0f} %"


def call_text(explained: Explained) -> str:
    """The call, its prob, and whether it is the label."""
    summary = explained.summary
    verdict = {True: "right", False: f"wrong, the label is {label_of(explained.label)}", None: "no label to compare with"}
    return f"{CLASSES[summary.call]} (prob {summary.prob:.3f}): {verdict[explained.right]}"


def centre_text(explained: Explained) -> str:
    """How much of the attribution lies in the centre, against an even spread."""
    share, even = explained.summary.centre_share, even_share(len(explained.pixels))
    return FLAT if share is None else f"{percent(share)} of the attribution lies in the centre ({percent(even)} if spread evenly)"


def blur_text(explained: Explained) -> str:
    """What blurring does to prob, and whether it turns the call."""
    summary = explained.summary
    parts = []
    for what, prob in (("centre", summary.prob_without_centre), ("surround", summary.prob_without_surround)):
        turned = "" if (prob >= 0.5) == bool(summary.call) else f", which turns the call to {CLASSES[1 - summary.call]}"
        parts.append(f"prob {prob:.3f} with the {what} blurred away{turned}")
    return "; ".join(parts)


def views_text(explained: Explained) -> str:
    """How far the D4 views agree on the call, and on where to look."""
    summary = explained.summary
    calls = f"{summary.views_alike} of {summary.n_views} D4 views give this call"
    return (
        calls if summary.view_agreement is None else f"{calls}; their maps correlate {summary.view_agreement:.2f} (1 is the same)"
    )


def neighbours_heading(explained: Explained) -> str:
    """Which neighbours are shown, and in which embedding."""
    others = "of other slides" if explained.wsi else "(its slide is unknown: near duplicates left out)"
    return f"Nearest labelled patches {others} in the embedding of fold {explained.folds[0]}"


def explained_text(explained: Explained) -> str:
    """A block of lines on one patch."""
    slide = explained.wsi or "unknown"
    lines = [
        f"patch {explained.id}: {label_of(explained.label)}, slide {slide}, {explained.split}",
        f"  network     {explained.network}",
        f"  call        {call_text(explained)}",
        f"  centre      {centre_text(explained)}",
        f"  blurred     {blur_text(explained)}",
        f"  agreement   {views_text(explained)}",
    ]
    if explained.neighbours:
        lines.append(f"  {neighbours_heading(explained)}:")
    for each in explained.neighbours:
        where = f"slide {each['wsi']}" if each["wsi"] else "slide unknown"
        lines.append(f"    {each['cosine']:.4f}  {label_of(each['label']):<6}  {where}  {each['id']}")
    return "\n".join(lines)


def fold_text(facts: dict[str, Any]) -> str:
    """The table of `pcam-ssl explain RUN --whole-fold K`."""
    lines = [
        f"fold {facts['fold']}: {facts['n']:,} patches, explained by the network that never saw their labels, one plain view each",
        f"share of the attribution in the centre; {percent(facts['even_share'])} if spread evenly",
        f"{'':<16}{'patches':>9}   mean share  95 % interval",
    ]
    for name, title in (("all", "all"), ("right", "called right"), ("wrong", "called wrong")):
        lines.append(f"{title:<16}{facts[name]['n']:>9,}   {_mean(facts[name])}")
    lines.append(f"{'right - wrong':<16}{'':>9}   {_mean(facts['difference'], signed=True)}")
    lines.append(f"interval: {facts['interval']}")
    if facts["flat"]:
        lines.append(f"{facts['flat']:,} patches whose map is flat are left out")
    return "\n".join(lines)


def _mean(score: dict[str, Any], signed: bool = False) -> str:
    if score["value"] is None:
        return f"-  ({score['reason']})"
    form = "{:+.3f}" if signed else "{:.3f}"
    ends = f"{form.format(score['low'])} to {form.format(score['high'])}" if score["low"] is not None else f"({score['reason']})"
    return f"{form.format(score['value']):<12}{ends}"
