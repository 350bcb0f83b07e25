"""Methods and selectors of other packages: found by their entry points, named in a recipe like those of this package."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pcam_ssl.errors import UserError, first_line

METHODS = "pcam_ssl.methods"
"""A class with `Options`, a `Section` whose `name` is the entry point's, and `build(network, labels, **options)`, see `pcam_ssl.methods`."""
SELECTORS = "pcam_ssl.selectors"
"""A `Selector`, see `pcam_ssl.pseudo_labels.selectors`, with the type and the field of its key under `pseudo:`."""


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def extension_names(group: str) -> list[str]:
    """Names that installed packages add to a group, sorted."""
    return sorted(_found(group))


def load_extension(group: str, name: str) -> Any:
    """What an entry point stands for. Raises UserError where no package has it, or importing it fails."""
    if name not in _found(group):
        raise UserError(f"{name}: no installed package has an entry point {name} of {group}; install the package that does")
    point = _found(group)[name]
    try:
        return point.load()
    except Exception as error:  # whatever the other package raises while it is imported
        raise UserError(
            f"{name}: {point.value}, an entry point of {group}, cannot be loaded ({first_line(error)}); mend that package, or name another"
        ) from None
