"""HTML and SVG in which text is escaped unless it is markup already."""

from html import escape


class Markup(str):
    """Text that is markup already; every other value is escaped when it enters an element."""

    __slots__ = ()


def join(children) -> Markup:
    """Values one after another, nested lists flattened, None left out."""
    parts = []
    for child in children:
        if isinstance(child, (list, tuple)):
            parts.append(join(child))
        elif child is not None:
            parts.append(child if isinstance(child, Markup) else escape(str(child)))
    return Markup("".join(parts))


def tag(name: str, *children, **attributes) -> Markup:
    """An element. `class_` stands for class, `stroke_width` for stroke-width; attributes that are None are left out."""
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opening = "".join(f' {key}="{escape(str(value))}"' for key, value in given.items())
    return Markup(f"<{name}{opening}>{join(children)}</{name}>")


def table(head: list, rows: list[list], caption: str | None = None) -> Markup:
    """A table that scrolls sideways where it is too wide; the first cell of each row names it."""
    body = [tag("tr", tag("th", row[0], scope="row"), [tag("td", cell) for cell in row[1:]]) for row in rows]
    parts = [
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", [tag("th", name, scope="col") for name in head])),
        tag("tbody", body),
    ]
    return tag("div", tag("table", parts), class_="scroll", tabindex=0, role="region", aria_label=caption or "table")


def fold_out(summary: str, *children) -> Markup:
    """A part that opens on request."""
    return tag("details", tag("summary", summary), *children)


def card(title: str, *children) -> Markup:
    """A section of the page."""
    return tag("section", tag("h2", title), *children, class_="card")


def absent(title: str, reason: str) -> Markup:
    """A section that could not be made, and why."""
    return card(title, tag("p", f"Not shown: {reason}.", class_="absent"))


def three(value: float | None) -> str:
    """A score with three decimals, or '-' where it is not defined."""
    return "-" if value is None else f"{value:.3f}"


def with_interval(score: dict, signed: bool = False) -> Markup:
    """A value and, beneath it, its interval where there is one."""
    form = "{:+.3f}" if signed else "{:.3f}"
    if score["value"] is None:
        return Markup("-")
    parts = [form.format(score["value"])]
    if score["low"] is not None:
        parts.append(tag("small", f"{form.format(score['low'])} to {form.format(score['high'])}"))
    return join(parts)
