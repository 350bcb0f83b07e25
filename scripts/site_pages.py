"""MkDocs hook: RESULTS.md, BENCHMARKS.md and CHANGELOG.md as pages of the site, with links that work there and in the repository."""

import re
from pathlib import Path

from mkdocs.structure.files import File

PAGES = {"RESULTS.md": "results.md", "BENCHMARKS.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}


def on_files(files, config):
    """Add the pages, which lie beside docs/."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        text = re.sub(r"\]\((?:docs/)", "](", (root / name).read_text(encoding="utf-8"))
        files.append(File.generated(config, page, content=_within_site(text)))
    return files


def on_page_markdown(markdown, **_):
    """Point links such as `../RESULTS.md#seeds` to the pages of the site."""
    return re.sub(r"\]\((?:\.\./)+([A-Z]+\.md)", lambda link: f"]({PAGES.get(link[1], link[0])}", markdown)


def _within_site(text: str) -> str:
    return re.sub(r"\]\(([A-Z]+\.md)", lambda link: f"]({PAGES.get(link[1], link[1])}", text)
