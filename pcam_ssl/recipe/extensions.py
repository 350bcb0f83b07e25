"""Methods and selectors of other packages. They are found by entry point and named in a recipe like those of this package."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pcam_ssl.errors import UserError, first_line

METHODS = "pcam_ssl.methods"
"""Entry point of a method: a class with `Options`, a `Section` whose `name` is the name of the entry point, and with
`build(network, labels, **options)`; see `pcam_ssl.methods`."""
SELECTORS = "pcam_ssl.selectors"
"""Entry point of a selector: a `Selector` with the type and the field of its key under `pseudo:`; see `pcam_ssl.pseudo_labels.selectors`."""


@cache
def _entry_points(group: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=group)}


def extension_names(group: str) -> list[str]:
    """Sorted names that installed packages add to a group."""
    return sorted(_entry_points(group))


def load_extension(group: str, name: str) -> Any:
    """The object that an entry point refers to. Raises UserError where no package has it, or where importing it fails."""
    if name not in _entry_points(group):
        raise UserError(f"{name}: no installed package has an entry point {name} of {group}; install the package that does")
    point = _entry_points(group)[name]
    try:
        return point.load()
    except Exception as error:  # the import of the other package can raise anything
        raise UserError(
            f"{name}: {point.value}, an entry point of {group}, cannot be loaded ({first_line(error)}); fix that package, or name another"
        ) from None
