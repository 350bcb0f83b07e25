"""kNN, and its blend with the head, beside the head; and how well nearest neighbours agree in class. No torch."""

from typing import Any

from pcam_ssl.render.format import by_knn
from pcam_ssl.render.markup import Markup, absent, card, table, tag, with_interval

TITLE = "Nearest neighbours"
MEASURES = {"precision_at_1": "precision@1", "r_precision": "R-precision", "map_at_r": "MAP@R", "cmc_at_5": "CMC@5"}
KINDS = {"knn": "kNN", "blend": "blend of both"}


def retrieval_card(scores: dict[str, Any]) -> Markup:
    """From scores.json: AUROC of kNN and blend with the paired difference to the head, then retrieval in all slides and across them."""
    neighbours = scores.get("neighbours")
    if not neighbours:
        return absent(TITLE, "the run made no kNN; `pcam-ssl metric-train`, or neighbours.use=true, does")
    if by_knn(scores):
        note = "The scores of this page are those of kNN: the fold's training patches vote; no patch that it trained on is scored."
        return card(TITLE, tag("p", note, class_="note"), *_retrieval(neighbours["retrieval"]))
    head = scores["out_of_fold"]["scores"]["auroc"]
    rows: list[list] = [["head", with_interval(head), "-"]]
    for kind, name in KINDS.items():
        entry = neighbours[kind]
        gain = with_interval(entry["above_head"]["auroc"], signed=True)
        rows.append([name, with_interval(entry["out_of_fold"]["scores"]["auroc"]), gain])
    return card(
        TITLE,
        tag("p", "kNN: the fold's training patches vote; no patch that it trained on is scored.", class_="note"),
        table(["AUROC out of fold", "score", "less the head, paired"], rows),
        *_retrieval(neighbours["retrieval"]),
    )


def _retrieval(retrieval: dict[str, Any]) -> list[Markup]:
    everywhere, across = retrieval["all_slides"], retrieval["across_slides"]
    rows = [
        [name, *(with_interval(scope[key]) if scope else "-" for scope in (everywhere, across))] for key, name in MEASURES.items()
    ]
    note = f"{retrieval['queried']:,} patches asked, each among the others that its fold scored, in that fold's embedding."
    if across is None:
        note += f" None across slides: {retrieval['reason']}."
    else:
        note += " Across slides is the one to believe: within a slide, likeness of stain answers as well."
    return [tag("p", note, class_="note"), table(["retrieval", "all slides", "across slides"], rows)]
