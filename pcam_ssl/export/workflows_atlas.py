"""Embedding Atlas, a viewer of its own in the browser, on a file that `explore` wrote: on this machine alone. No torch."""

import sys
from importlib.util import find_spec
from pathlib import Path
from subprocess import run

from pcam_ssl.errors import UserError

LOOPBACK = "127.0.0.1"
PACKAGE = "embedding_atlas"


def atlas_options(file: Path | str, port: int) -> list[str]:
    """What `embedding-atlas` is told: the file, its columns, and to answer this machine alone."""
    columns = ["--x", "x", "--y", "y", "--image", "thumbnail", "--neighbors", "neighbours"]
    return [str(file), *columns, "--host", LOOPBACK, "--port", str(port)]


def serve_atlas(file: Path | str, port: int) -> None:
    """Show `file` until Ctrl-C. Raises UserError where Embedding Atlas is not installed, or stops with an error."""
    if find_spec(PACKAGE) is None:
        raise UserError(f"--serve: {file} is written, but Embedding Atlas is not installed; pip install 'pcam-ssl[explore]'")
    try:
        done = run([sys.executable, "-m", f"{PACKAGE}.cli", *atlas_options(file, port)])
    except KeyboardInterrupt:
        return
    if done.returncode:
        raise UserError(f"--serve: {file} is written, but Embedding Atlas stopped with code {done.returncode}; see its lines above")
