"""A page of the house as markdown: every section says the same on paper."""

from pcam_ssl.report.markdown import block, escaped, fenced, table
from pcam_ssl.report.page_blocks import Block, page_blocks

HEADINGS = {"h1": "# ", "h2": "## ", "h3": "### "}


def page_markdown(page: str) -> str:
    """The whole page. Text stays text whatever the data holds; a table in the page is a table here."""
    lines: list[str] = []
    before = ""
    for each in page_blocks(page):
        lines += [_line(each)] if each.kind == before == "item" else ["", _line(each)]
        before = each.kind
    return "\n".join(lines[1:]) + "\n"


def _line(each: Block) -> str:
    if each.kind == "table":
        head, *rows = [[escaped(cell) for cell in row] for row in each.rows]
        return table(head, rows)
    if each.kind == "pre":
        return fenced(each.text)
    text = escaped(each.text)
    if each.kind in HEADINGS:
        return HEADINGS[each.kind] + text
    return {"item": f"- {block(text)}", "chart": f"Chart: {text}", "opens": f"**{text}**"}.get(each.kind, block(text))
