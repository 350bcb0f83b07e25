"""Write the tables of docs/foundation-models.md from the table of the package.

python scripts/foundation_table.py docs/foundation-models.md
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pcam_ssl.models.foundation import FOUNDATION_MODELS

BEGIN, END = "<!-- tables: written by `make docs` -->\n", "<!-- end of tables -->\n"
RULES = {"cls": "class token", "mean": "mean of patch tokens", "cls+mean": "class token and mean of patch tokens"}


def tables() -> str:
    """Two tables as Markdown: what one needs to have it, and how its embedding is made."""
    terms = [
        (
            f"`{name}`",
            f"[{model.title}]({model.page})",
            model.licence,
            "yes" if model.gated else "no",
            f"{model.parameters / 1e6:,.0f} M",
            f"{model.gigabytes(2):.1f}, {model.gigabytes():.1f}",
            "not found" if model.pcam is None else f"{model.pcam:.3f}",
        )
        for name, model in FOUNDATION_MODELS.items()
    ]
    makes = [
        (
            f"`{name}`",
            f"{model.size_px}, {model.interpolation}",
            model.trained_at,
            RULES[model.tokens],
            f"{model.dimension:,}",
            model.paper,
        )
        for name, model in FOUNDATION_MODELS.items()
    ]
    first = _table(("`model.name`", "model", "licence", "gated", "parameters", "GB in fp16, fp32", "PCam"), terms)
    return first + "\n" + _table(("`model.name`", "input px", "trained at", "embedding", "dimension", "source"), makes)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(text: str) -> str:
    """A page with its tables written anew, between the two marks."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + tables() + "\n" + END + rest.partition(END)[2]


def main(argv: Sequence[str] | None = None) -> None:
    """Write the tables into the named page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    path = parser.parse_args(argv).page
    path.write_text(page(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
