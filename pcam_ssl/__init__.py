"""Leak-free training and evaluation for histopathology patches.

`import pcam_ssl as pcam`, then a function a command: `pcam.train`, `pcam.compare`, `pcam.search`. Each is loaded when first named, so that the
import itself is quick and loads neither torch nor pandas.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pcam_ssl.api import (
        audit,
        baseline,
        blend,
        bootstrap_intervals,
        compare,
        copy_recipe,
        doctor,
        download,
        embed,
        explain,
        explain_fold,
        explore,
        export,
        features,
        heatmap,
        import_dataset,
        index,
        label_curve,
        launch,
        make_folds,
        metric_train,
        open_dataset,
        open_run,
        patch_history,
        plan,
        predict,
        pseudo_label,
        rebuild_index,
        recipe,
        recipes,
        report,
        run_unit,
        scores,
        search,
        serve,
        show,
        sweep,
        synth,
        thresholds,
        tile,
        train,
    )
    from pcam_ssl.data.dataset import Dataset
    from pcam_ssl.errors import LeakError, UserError
    from pcam_ssl.recipe.schema import Recipe
    from pcam_ssl.runs.run import Run

_HOMES = {
    "Dataset": "pcam_ssl.data.dataset",
    "LeakError": "pcam_ssl.errors",
    "Recipe": "pcam_ssl.recipe.schema",
    "Run": "pcam_ssl.runs.run",
    "UserError": "pcam_ssl.errors",
}
"""Where a name comes from; all others are functions of `pcam_ssl.api`."""
__all__ = [
    "Dataset",
    "LeakError",
    "Recipe",
    "Run",
    "UserError",
    "audit",
    "baseline",
    "blend",
    "bootstrap_intervals",
    "compare",
    "copy_recipe",
    "doctor",
    "download",
    "embed",
    "explain",
    "explain_fold",
    "explore",
    "export",
    "features",
    "heatmap",
    "import_dataset",
    "index",
    "label_curve",
    "launch",
    "make_folds",
    "metric_train",
    "open_dataset",
    "open_run",
    "patch_history",
    "plan",
    "predict",
    "pseudo_label",
    "rebuild_index",
    "recipe",
    "recipes",
    "report",
    "run_unit",
    "scores",
    "search",
    "serve",
    "show",
    "sweep",
    "synth",
    "thresholds",
    "tile",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        from pcam_ssl.errors import nearest

        raise AttributeError(f"pcam_ssl has no {name!r}.{nearest(name, __all__)}")
    return getattr(import_module(_HOMES.get(name, "pcam_ssl.api")), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """Some functions are named as the folder that does their work, as `search`; importing the folder must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
