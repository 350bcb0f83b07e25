"""The commands that README.md and the pages of docs/ show, so that tests can run them.

A fenced block of commands is run by tests/test_docs_commands.py, unless its first line is `# not run in tests: REASON`.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
NOT_RUN = "# not run in tests: "
SHELL, PYTHON = ("sh", "bash", "console"), ("python",)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, and its lines with continuations joined."""

    language: str
    text: str

    @property
    def lines(self) -> list[str]:
        return self.text.replace("\\\n", " ").splitlines()

    @property
    def not_run(self) -> bool:
        return self.text.startswith(NOT_RUN)

    @property
    def commands(self) -> list[list[str]]:
        """The words after `pcam-ssl` of every line, comments left out; all words where a line begins with `torchrun`. Raises ValueError for
        a line that is neither."""
        words = [shlex.split(line, comments=True) for line in self.lines]
        strange = [line for line, each in zip(self.lines, words, strict=True) if each and each[0] not in ("pcam-ssl", "torchrun")]
        if strange:
            raise ValueError(f"tests run pcam-ssl commands only; begin the block with `{NOT_RUN}REASON`: {strange}")
        return [each if each[0] == "torchrun" else each[1:] for each in words if each]


def pages() -> list[Path]:
    """README.md and every page of docs/ but those that are generated or have tests of their own."""
    others = {"cli.md", "recipe-keys.md", "api.md", "extend.md"}
    return [ROOT / "README.md", *sorted(page for page in DOCS.rglob("*.md") if page.name not in others)]


def blocks(page: Path | str, languages: tuple[str, ...] = SHELL) -> list[Block]:
    """The fenced blocks of a page in these languages; one that names none and shows a command counts as shell."""
    found = re.findall(r"^```(\w*)[^\n]*\n(.*?)^```$", (DOCS / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    plain = [("sh" if not language and re.search("^pcam-ssl ", text, re.MULTILINE) else language, text) for language, text in found]
    return [Block(language, text) for language, text in plain if language in languages]


def documented(page: Path | str) -> list[list[str]]:
    """The words after `pcam-ssl` of every command that tests run."""
    return [step for step in steps(page) if not isinstance(step, str)]


def steps(page: Path | str) -> list[list[str] | str]:
    """What tests run of a page, in order: the words of a command, or Python. In README.md the commands in tables, too."""
    shown = []
    for block in blocks(page, (*SHELL, *PYTHON)):
        if not block.not_run:
            shown += [block.text] if block.language in PYTHON else block.commands
    if Path(page).name == "README.md":
        rows = [line for line in (DOCS / page).read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
        shown += [shlex.split(command) for row in rows for command in re.findall(r"`pcam-ssl ([^`]+)`", row)]
    return shown
