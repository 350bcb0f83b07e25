"""MkDocs hook: RESULTS.md, BENCHMARKS.md and CHANGELOG.md as pages of the site. Links to and from them work there and in the repository."""

import re
from pathlib import Path

from mkdocs.structure.files import File

PAGES = {"RESULTS.md": "results.md", "BENCHMARKS.md": "benchmarks.md", "CHANGELOG.md": "changelog.md"}
LINK = re.compile(rf"\]\(((?:\.\./)*)({'|'.join(map(re.escape, PAGES))})")


def on_files(files, config):
    """Add the pages, which are beside docs/."""
    root = Path(config.config_file_path).parent
    for name, page in PAGES.items():
        text = (root / name).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=_point_to_pages(text, "")))
    return files


def on_page_markdown(markdown, **_):
    """Point links such as `../RESULTS.md#seeds` to the pages."""
    return _point_to_pages(markdown, "../")


def _point_to_pages(text: str, way_out: str) -> str:
    return LINK.sub(lambda link: f"]({link[1].removeprefix(way_out)}{PAGES[link[2]]}", text)
