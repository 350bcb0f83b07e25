"""Downloading Kaggle's competition data by the user's own `kaggle` command, which holds the account and its token."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from pcam_ssl.data.download import writing_in
from pcam_ssl.errors import UserError
from pcam_ssl.terminal import draws_bars, say

COMPETITION = "histopathologic-cancer-detection"
RULES_PAGE = f"https://www.kaggle.com/competitions/{COMPETITION}/rules"
TOKEN_PAGE = "https://www.kaggle.com/settings/api"
AGAIN = "then run the same command"
TAIL_BYTES = 2**13
FAILURES = {
    r"\b403\b|accept this competition": f"Kaggle refuses the download (403); accept the rules at {RULES_PAGE}, {AGAIN}",
    r"\b401\b|unauthorized|authenticat|kaggle\.json": f"no valid API token (401); make one at {TOKEN_PAGE}, save it as told there, {AGAIN}",
    r"no space left": f"the disk is full; free some space, {AGAIN}",
    r"nameresolution|max retries|connection|timed out": f"Kaggle cannot be reached; check the connection, {AGAIN}",
}
"""What the output of a failed `kaggle` holds, as a pattern, and what it means. The first that fits counts."""


def download_kaggle(folder: Path | str) -> list[Path]:
    """Download the competition's zip (7 GB) into `folder` by `kaggle competitions download`; returns its path.

    The zip gets its name when it is whole; a broken transfer is kept in a hidden folder, and `kaggle` continues it. Raises UserError
    where the command is absent or fails (no token, rules not accepted, no connection), or the zip is cut short.
    """
    folder = Path(folder)
    target = folder / f"{COMPETITION}.zip"
    with writing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if target.exists():
            _refuse_damaged(target, "delete it and run this again")
            say(f"{target.name}: already present")
            return [target]
        part = folder / f".{COMPETITION}.part"
        part.mkdir(exist_ok=True)
        _run([_command(), "competitions", "download", "-c", COMPETITION, "-p", str(part)])
        try:
            _refuse_damaged(part / target.name, "it was removed: run the same command again")
        except UserError:
            shutil.rmtree(part)
            raise
        os.replace(part / target.name, target)
        shutil.rmtree(part)
    return [target]


def _command() -> str:
    """The path of `kaggle`, on PATH or beside the Python that runs. Raises UserError where there is none."""
    found = shutil.which("kaggle") or shutil.which("kaggle", path=str(Path(sys.executable).parent))
    if found is None:
        steps = f"`pip install kaggle`, make an API token at {TOKEN_PAGE}, accept the rules at {RULES_PAGE}, {AGAIN}"
        raise UserError(f"kaggle: no such command; {steps}")
    return found


def _run(command: list[str]) -> None:
    """Run `kaggle`. Its progress goes to the terminal; its other output is held back, and told in one line where it fails."""
    told, drawn = b"", False
    try:
        kaggle = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise UserError(f"{command[0]}: cannot be run ({error.strerror}); install it again: `pip install kaggle`") from None
    with kaggle:
        try:
            while block := kaggle.stdout.read1(2**12):
                told = (told + block)[-TAIL_BYTES:]
                if b"\r" in block and draws_bars():
                    drawn = True
                    sys.stderr.write(block.decode(errors="replace"))
                    sys.stderr.flush()
        except BaseException:
            kaggle.terminate()
            raise
        finally:
            if drawn:
                print(file=sys.stderr)
    if kaggle.returncode:
        raise UserError(f"kaggle: {_meaning(told.decode(errors='replace'), kaggle.returncode)}")


def _meaning(output: str, code: int) -> str:
    """What the output of a failed `kaggle` means, and the next step."""
    lines = [line.strip() for line in re.split(r"[\r\n]", output) if line.strip() and "%|" not in line]  # not those of its bar
    for pattern, meaning in FAILURES.items():
        if re.search(pattern, "\n".join(lines), re.IGNORECASE):
            return meaning
    lines = [line for line in lines if not line.startswith(("Downloading", "Warning"))] or [f"exit code {code}"]
    return f"failed ({lines[-1 if lines[0].startswith('Traceback') else 0]}); run the same command to continue"


def _refuse_damaged(path: Path, fix: str) -> None:
    """Raises UserError where `path` is not a whole zip. Some versions of `kaggle` take a transfer that broke for a whole one."""
    if not path.is_file():
        raise UserError(f"kaggle: ended without {path.name}; run the same command to continue")
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: cut short, or not a zip file; {fix}")
