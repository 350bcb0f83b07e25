"""Write docs/api.md from the docstrings of the public API: python scripts/api_page.py docs/api.md"""

import importlib
import inspect
import sys
from pathlib import Path

import pcam_ssl

GROUPS = {
    "Datasets": ("import_dataset", "tile", "download", "synth", "open_dataset", "show", "audit", "features", "make_folds"),
    "Training": ("train", "baseline", "metric_train", "sweep", "label_curve", "pseudo_label", "patch_history"),
    "Predictions and scores": (
        *("open_run", "predict", "scores", "bootstrap_intervals", "thresholds", "compare", "blend", "report"),
    ),
    "Looking into runs": (
        "embed",
        "search",
        "index",
        "rebuild_index",
        "explain",
        "explain_fold",
        "heatmap",
        "export",
        "explore",
        "serve",
    ),
    "Recipes and the machine": ("recipes", "recipe", "copy_recipe", "doctor"),
}
CLASSES = {
    "pcam_ssl.runs.run": ("Run", "FoldNetworks", "RunTable"),
    "pcam_ssl.models.artefact": ("CalibratedNetwork",),
    "pcam_ssl.data.dataset": ("Dataset",),
    "pcam_ssl.evaluation.scores": ("Score", "Scores", "RunScores"),
    "pcam_ssl.results": ("Predictions", "Comparison", "LabelCurve", "RoundsVerdict", "Embeddings", "Explanations"),
    "pcam_ssl.search.search": ("Found",),
    "pcam_ssl.heatmap.heatmap": ("HeatMaps", "HeatMap"),
    "pcam_ssl.errors": ("UserError", "LeakError"),
}
"""What the functions give and raise, by the module that holds it."""
HIDDEN = ("unit", "fold_done", "unit_done", "update", "table_notes", "recipe_keys", "document")
"""Methods that are the package's own."""
HEAD = """# Python API

`import pcam_ssl as pcam` is quick and loads neither torch nor pandas; what a function needs is loaded when it is called.

- A function has the name of its command, and its options are keywords of the same names. `settings` is `--set`.
- Where a run, dataset or file is taken (`StrPath` below), a path or the held object will do.
- Runs, datasets, scores, comparisons and search results show themselves in a notebook. Progress bars need `pip install 'pcam-ssl[notebook]'` there.
- Whatever you can mend is raised as `UserError`: one line, in the parts `where`, `what` and `next`.
- An interrupt (Ctrl-C, *interrupt kernel*) leaves a run that the same call continues.

```python
import pcam_ssl as pcam

data = pcam.import_dataset("histopathologic-cancer-detection.zip", "data/pcam", wsi="patch_id_wsi.csv")
base = pcam.train(data, "baseline", {"model.name": "resnet34"}, out="runs/r34")  # a Run; continued where it exists
base.scores["auroc"]  # 0.957 (0.941 to 0.969), slides resampled
base.oof.query("prob > .95 and label == 0")  # a DataFrame
metric = pcam.train(data, "metric", out="runs/metric")
rounds = pcam.pseudo_label(base, rounds=3)  # rounds.verdict; rounds.best is a Run
pcam.compare([base, metric, rounds.best])
blend = pcam.blend([rounds.best, metric.table("knn")], method="weights", out="runs/blend")
pcam.search(metric, ids=["0a1b2c"], k=10).show()
pcam.report(blend)
blend.submission("submission.csv")
```

`examples/tour.ipynb` goes this way in a minute, on synthetic slides.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, names in GROUPS.items():
        lines.append(f"## {title}\n")
        lines += [entry(f"pcam.{name}", getattr(pcam_ssl, name), "###") for name in names]
    lines.append("## What they give\n")
    for module, names in CLASSES.items():
        lines += [class_entry(name, getattr(importlib.import_module(module), name)) for name in names]
    return "\n".join(lines).rstrip("\n") + "\n"


def entry(name: str, function, heading: str) -> str:
    """A function with its signature and what its docstring says."""
    return f"{heading} `{name}`\n\n```text\n{signature(name, function)}\n```\n\n{inspect.getdoc(function)}\n"


def signature(name: str, function) -> str:
    """The call as one writes it, a line an option where it is long."""
    found = inspect.signature(function)
    shown = [parameter(each) for each in found.parameters.values()]
    for place, each in enumerate(found.parameters.values()):
        if each.kind is each.KEYWORD_ONLY:
            shown.insert(place, "*")
            break
    given = "" if found.return_annotation is found.empty else f" -> {plain(found.return_annotation)}"
    line = f"{name}({', '.join(shown)}){given}"
    return line if len(line) <= 100 else f"{name}(\n" + "".join(f"    {each},\n" for each in shown) + f"){given}"


def parameter(each: inspect.Parameter) -> str:
    default = "" if each.default is each.empty else f" = {each.default!r}"
    return f"{each.name}: {plain(each.annotation)}{default}"


def plain(annotation) -> str:
    """An annotation as it is read."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    text = text.replace("'", "")
    return (
        text.replace("str | os.PathLike[str]", "StrPath")
        .replace("collections.abc.", "")
        .replace("typing.", "")
        .replace("pathlib.", "")
    )


def class_entry(name: str, made: type) -> str:
    """A class: what it is, then its attributes and methods."""
    lines = [f"### `{name}`\n", f"{inspect.getdoc(made)}\n"]
    for key, member in vars(made).items():
        shown = member.fget if isinstance(member, property) else member
        if key.startswith("_") or key in HIDDEN or not callable(shown) or not inspect.getdoc(shown):
            continue
        call = "" if isinstance(member, property) else plain(str(inspect.signature(shown)).split(" -> ")[0])
        call = call.replace("(self, ", "(").replace("(self)", "()").replace('"', "")
        lines.append(f"- `.{key}{call}`: {' '.join(inspect.getdoc(shown).split())}")
    return "\n".join(lines).rstrip("\n") + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
