"""`pcam-ssl predict`, `pcam-ssl compare`, `pcam-ssl blend` and `pcam-ssl report`."""

import json
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from pcam_ssl.cli.options import DeviceOption, RoundOption


def predict(
    run: Annotated[Path, Argument(metavar="RUN", help="folder of a finished run")],
    source: Annotated[Path, Argument(metavar="SOURCE", help="a DATASET, or anything `pcam-ssl data import` reads")],
    out: Annotated[Path, Option("--out", metavar="FILE.parquet", help="Predictions to write")],
    split: Annotated[str | None, Option("--split", help="only this split of the source")] = None,
    device: DeviceOption = "auto",
    skip_bad: Annotated[bool, Option("--skip-bad", help="leave unreadable files out instead of stopping")] = False,
    round: RoundOption = None,
    as_json: Annotated[bool, Option("--json", help="print the scores as JSON")] = False,
) -> None:
    """Score new patches with every fold of a run; where the source has labels, print the scores.

    Example: pcam-ssl predict runs/baseline patches/ --out new.parquet
    """
    from pcam_ssl.api import predict
    from pcam_ssl.render.format import score_table

    found = predict(run, source, out=out, split=split, device=device, skip_bad=skip_bad, round=round)
    if as_json:
        report = None if found.scores is None else found.scores.report
        print(json.dumps({"out": str(out), "n": len(found), "scores": report}, indent=2))
        return
    if found.scores is not None:
        print(score_table(found.scores.report, f"{source}, mean of folds") + "\n")
    print(f"{out}: {len(found)} patches; one row per id and fold, fold -1 is the mean")


def compare(
    runs: Annotated[
        list[str], Argument(metavar="RUN...", help="finished runs; also RUN/round-2, RUN:knn, RUN:blend, RUN:graph, RUN:spatial")
    ],
    html: Annotated[Path | None, Option("--html", metavar="FILE", help="also write a page with charts")] = None,
    as_json: Annotated[bool, Option("--json", help="print JSON instead of tables")] = False,
) -> None:
    """Put runs of the same dataset and folds side by side: scores, paired differences to the first, cost, correlation.

    Example: pcam-ssl compare runs/resnet34 runs/densenet121 --html compare.html
    """
    from pcam_ssl.api import compare

    show_comparison(compare(runs, html=html), html, as_json)


def show_comparison(comparison: dict, html: Path | None, as_json: bool) -> None:
    """Print a comparison, and say where its page is."""
    from pcam_ssl.compare.report import compare_text

    print(json.dumps(comparison, indent=2) if as_json else compare_text(comparison))
    if html is not None and not as_json:
        print(f"\npage {html}")


def blend(
    runs: Annotated[
        list[str], Argument(metavar="RUN...", help="finished runs; also RUN/round-2, RUN:knn, RUN:blend, RUN:graph, RUN:spatial")
    ],
    out: Annotated[Path, Option("--out", metavar="RUN", help="the run folder to make")],
    method: Annotated[
        str,
        Option(
            "--method",
            help="mean (of probs), rank-mean, logit-mean; weights (fitted, not negative) and greedy (forward selection), both nested over folds",
        ),
    ] = "mean",
    max_correlation: Annotated[
        float | None, Option("--max-correlation", metavar="R", help="of two runs more alike than this, drop the worse (Spearman)")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="print scores.json instead of a table")] = False,
) -> None:
    """Blend the predictions of several runs into a run of its own; weights that score a fold never saw its labels.

    Example: pcam-ssl blend runs/resnet34 runs/densenet121 runs/metric:knn --method weights --out runs/blend
    """
    from pcam_ssl.api import blend
    from pcam_ssl.blending.report import blend_text
    from pcam_ssl.report.summary import run_summary

    run = blend(runs, out=out, method=method, max_correlation=max_correlation)
    scores = run.scores.file
    print(json.dumps(scores, indent=2) if as_json else f"{run_summary(run, scores)}\n\n{blend_text(scores)}")


def report(
    runs: Annotated[list[Path], Argument(metavar="RUN", help="folders of finished runs")],
    sensitivity: Annotated[
        float | None,
        Option(help="operating point: at least this share of tumor patches is called tumor [default: 0.95]", metavar="SHARE"),
    ] = None,
    specificity: Annotated[
        float | None, Option(help="operating point: at least this share of normal patches is called normal", metavar="SHARE")
    ] = None,
    explain: Annotated[
        bool, Option("--explain/--no-explain", help="ask the networks for explanations, neighbours, and embedding maps")
    ] = True,
    map: Annotated[str, Option("--map", help="embedding map by pca, or umap (extra: pcam-ssl[explore])")] = "pca",
    data: Annotated[Path | None, Option("--data", metavar="DATASET", help="the runs' dataset, where it has moved")] = None,
    device: Annotated[str, Option("--device", help="where the networks are asked: auto, cpu, cuda or mps")] = "auto",
    as_markdown: Annotated[bool, Option("--md", help="print the page as markdown instead of a line")] = False,
    as_json: Annotated[
        bool, Option("--json", help="print all that the page says as JSON; a list where several runs are named")
    ] = False,
) -> None:
    """Write RUN/report.html: whether the score can be believed, and everything it stands on; and RUN/model-card.md.

    The threshold of the operating point is chosen on each fold's inner slides, never on the patches it is scored on.

    Example: pcam-ssl report runs/baseline --sensitivity 0.98
    """
    from pcam_ssl.api import report
    from pcam_ssl.errors import UserError

    if as_markdown and as_json:
        raise UserError("--md, --json: one of them is printed; name one")
    told = report(runs, sensitivity=sensitivity, specificity=specificity, explain=explain, map=map, data=data, device=device)
    if as_json:
        facts = [one.to_dict() for one in told]
        print(json.dumps(facts[0] if len(facts) == 1 else facts, indent=2))
    elif as_markdown:
        print("\n".join(one.to_markdown() for one in told), end="")
    else:
        for one in told:
            print(one)
