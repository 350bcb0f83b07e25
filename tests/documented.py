"""The commands that a page of docs/ shows, so that tests can run them."""

import re
import shlex
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"


def documented(page: str) -> list[list[str]]:
    """The words after `pcam-ssl` of every command in the fenced blocks of `page`; comments and line continuations are resolved."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("pcam-ssl ")]
