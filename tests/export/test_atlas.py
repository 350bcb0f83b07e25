import importlib.util

import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.export import atlas
from pcam_ssl.export.atlas import atlas_options, serve_atlas


@pytest.fixture
def viewer(tmp_path, monkeypatch):
    """viewer(code): an `embedding_atlas` in its place that writes its words into a file and stops with `code`; returns the file."""

    def viewer(code: int):
        package = tmp_path / "packages" / "embedding_atlas"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        body = f"import sys\nopen({str(tmp_path / 'told')!r}, 'w').write('\\n'.join(sys.argv[1:]))\nsys.exit({code})\n"
        (package / "cli.py").write_text(body)
        monkeypatch.setenv("PYTHONPATH", str(package.parent))
        monkeypatch.syspath_prepend(str(package.parent))
        return tmp_path / "told"

    return viewer


@pytest.mark.processes
def test_the_viewer_gets_file_columns_and_loopback(viewer):
    told = viewer(0)
    serve_atlas("e.parquet", 5055)
    words = told.read_text().splitlines()
    assert words == atlas_options("e.parquet", 5055)
    assert words[0] == "e.parquet" and words[words.index("--host") + 1] == "127.0.0.1"


@pytest.mark.processes
def test_a_failed_viewer_is_reported_with_its_exit_code(viewer):
    viewer(3)
    with pytest.raises(UserError, match="Embedding Atlas stopped with code 3"):
        serve_atlas("e.parquet", 5055)


def test_ctrl_c_stops_the_viewer(viewer, monkeypatch):
    viewer(0)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(atlas, "run", interrupted)
    serve_atlas("e.parquet", 5055)


def test_an_absent_viewer_names_the_install_command(monkeypatch):
    monkeypatch.setattr(atlas, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"e.parquet is written, but .* pip install 'pcam-ssl\[explore\]'"):
        serve_atlas("e.parquet", 5055)


@pytest.mark.skipif(importlib.util.find_spec("embedding_atlas") is None, reason="Embedding Atlas is in the extra pcam-ssl[explore]")
def test_the_installed_viewer_knows_every_option(tmp_path):
    from click.testing import CliRunner
    from embedding_atlas.cli import main

    known = CliRunner().invoke(main, ["--help"]).output
    assert [word for word in atlas_options("e.parquet", 5055) if word.startswith("--") and word not in known] == []
