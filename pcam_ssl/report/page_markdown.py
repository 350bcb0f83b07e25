"""A page of the house as markdown, so that every section says the same on paper: charts and pictures by their words. No torch."""

import re
from html import unescape
from html.parser import HTMLParser

from pcam_ssl.report import markdown

HEADINGS = {"h1": "# ", "h2": "## ", "h3": "### "}
BLOCKS = ("p", "li", "dt", "figure", "caption", "summary", *HEADINGS)
SKIPPED = ("style", "title", "template")
ABSENT = re.compile(r'<h2>([^<]*)</h2><p class="absent">Not shown: ([^<]*)\.</p>')


def page_markdown(page: str) -> str:
    """The whole page. Text stays text whatever the data holds; a table in the page is a table here."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    return "\n\n".join(reader.blocks) + "\n"


def absences(page: str) -> dict[str, str]:
    """Why each section that could not be made is not there, by its title."""
    return {unescape(title): unescape(reason) for title, reason in ABSENT.findall(page)}


class _Reader(HTMLParser):
    """Gathers text until the element that it belongs to ends, then adds it as a block."""

    def __init__(self):
        super().__init__()
        self.blocks: list[str] = []
        self.text: list[str] = []
        self.term = ""
        self.rows: list[list[str]] | None = None
        self.skipping: list[str] = []
        self.fenced = False

    def handle_starttag(self, name, attributes):
        known = dict(attributes)
        if name == "svg" and known.get("role") == "img":
            self._add(f"Chart: {markdown.escaped(known['aria-label'])}")
        if self.skipping or name in SKIPPED or name == "svg" or known.get("class") == "legend":
            self.skipping += [name] if not self.skipping or name == self.skipping[0] else []
        elif name == "table":
            self.rows = []
        elif name == "tr":
            self.rows.append([])
        elif name == "pre":
            self.fenced, self.text = True, []
        elif name == "img" and known.get("alt"):
            self.text.append(f"{known['alt']}. ")
        elif name == "small":
            self.text.append(" (")
        elif name in ("th", "td", "dd", *BLOCKS) or known.get("class", "").startswith("tile "):
            self.text = []

    def handle_endtag(self, name):
        if self.skipping:
            self.skipping = self.skipping[:-1] if name == self.skipping[0] else self.skipping
        elif name in ("th", "td"):
            self.rows[-1].append(self._taken())
        elif name == "table":
            head, *rows = self.rows
            self._add(markdown.table(head, rows))
            self.rows = None
        elif name == "pre":
            self._add(markdown.fenced("".join(self.text)))
            self.fenced, self.text = False, []
        elif name == "small":
            self.text.append(")")
        elif name in ("span", "b"):
            self.text.append(" ")
        elif name == "dt":
            self.term = self._taken()
        elif name == "dd":
            self._item(f"{self.term}: {self._taken()}")
        elif name in ("li", "figure", "div"):
            self._item(self._taken())
        elif name == "summary":
            self._add(f"**{self._taken()}**")
        elif name in HEADINGS:
            self._add(HEADINGS[name] + self._taken())
        elif name in ("p", "caption", "footer"):
            self._add(markdown.block(self._taken()))

    def handle_data(self, data):
        if not self.skipping:
            self.text.append(data)

    def _taken(self) -> str:
        """The gathered text, escaped; and none is gathered any more."""
        text, self.text = "".join(self.text), []
        return markdown.escaped(text)

    def _item(self, text: str) -> None:
        """A line of a list, which goes on where the block before is one."""
        if not text:
            return
        line = f"- {markdown.block(text)}"
        if self.blocks and self.blocks[-1].startswith("- "):
            self.blocks[-1] += f"\n{line}"
        else:
            self.blocks.append(line)

    def _add(self, text: str) -> None:
        if text:
            self.blocks.append(text)
