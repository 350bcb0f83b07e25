"""Sections and pages of a report as a reader gets them."""

import re
from pathlib import Path

from pcam_ssl.render import html
from pcam_ssl.render.document import Block, Section
from pcam_ssl.report.report import Report
from pcam_ssl.runs.contents import read_facts
from pcam_ssl.runs.run import Run


def markup(*parts: Section | Block | None) -> str:
    """HTML of the parts, without spaces between elements."""
    return re.sub(r">\s+<", "><", html.fragment(parts).strip())


def words(*parts: Section | Block | None) -> str:
    """Their text, a bar between elements."""
    return re.sub(r"(<[^>]*>)+", "|", markup(*parts))


def write_report(run: Run, **choices) -> Path:
    """The page of a finished run, written into it."""
    return Report(read_facts(run), **choices).write()
