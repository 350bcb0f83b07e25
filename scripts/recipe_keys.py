"""Write the reference of all recipe keys from the schema.

python scripts/recipe_keys.py docs/recipe-keys.md
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from pcam_ssl.recipe.schema import MACHINE_KEYS, Recipe

PLAIN = {int: "integer", float: "number", str: "text", bool: "`true`, `false`", type(None): "`null`"}
SIGNS = (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt"))
HEAD = """\
# Recipe keys

`make docs` writes this page from the schema. `pcam-ssl recipes show NAME --keys` prints the keys of one recipe with their values.

A heading is a section of the recipe: `--set train.epochs=3` sets `epochs` of `train`. In `method`, `optim` and `schedule` the
`name` decides which other keys the section takes. Keys marked * change how the work is done, not its result. They may differ when a run is continued.
"""


def page() -> str:
    """The reference as Markdown."""
    parts = [HEAD]
    for section, field in Recipe.model_fields.items():
        members = [each for each in (field.annotation, *get_args(field.annotation)) if hasattr(each, "model_fields")]
        if not members:
            parts.append(f"## `{section}`\n\n{_table(section, {'': field})}")
            continue
        parts.append(f"## `{section}`\n")
        for member in members:
            if len(members) > 1:
                name = member.model_fields["name"].default
                chosen = " (default)" if isinstance(field.default, member) else ""
                parts.append(f"### `{section}.name: {name}`{chosen}\n")
            fields = {key: each for key, each in member.model_fields.items() if len(members) == 1 or key != "name"}
            parts.append(_table(section, fields))
    return "\n".join(parts)


def _table(section: str, fields: dict[str, FieldInfo]) -> str:
    rows = ["| key | default | values | meaning |", "|---|---|---|---|"]
    for key, field in fields.items():
        mark = " *" if f"{section}.{key}" in MACHINE_KEYS else ""
        default = field.default if isinstance(field.default, str) else json.dumps(field.default)
        values = ", ".join(_values(field.annotation, field.metadata))
        meaning = (field.description or "").replace("|", "\\|")
        rows.append(f"| `{key or section}`{mark} | `{default}` | {values} | {meaning} |")
    return "\n".join(rows) + "\n"


def _values(annotation: Any, constraints: Sequence[Any] = ()) -> list[str]:
    """What a key takes: `integer ≥ 2`, each choice of a Literal, the members of a union one after the other."""
    if annotation in PLAIN:
        bounds = " and ".join(_bounds(constraints)) if annotation in (int, float) else ""
        return [f"{PLAIN[annotation]} {bounds}".strip()]
    if hasattr(annotation, "__metadata__"):
        return _values(get_args(annotation)[0], [each for info in annotation.__metadata__ for each in info.metadata])
    if get_origin(annotation) is Literal:
        return [f"`{choice}`" for choice in get_args(annotation)]
    if get_origin(annotation) is dict:
        return ["mapping"]
    return [value for each in get_args(annotation) for value in _values(each, constraints)]


def _bounds(constraints: Sequence[Any]) -> list[str]:
    found = [(sign, getattr(each, name)) for each in constraints for sign, name in SIGNS if hasattr(each, name)]
    return [f"{sign} {value:,.15g}" for sign, value in found]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.parse_args().out.write_text(page(), encoding="utf-8")
