import pytest
import typer
from typer.testing import CliRunner

from pcam_ssl.cli.data import synth
from pcam_ssl.data.dataset import open_dataset


@pytest.fixture
def run():
    app = typer.Typer()
    app.command()(synth)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_synth_makes_a_dataset_and_prints_what_is_in_it(run, tmp_path):
    path = tmp_path / "drawn"
    result = run(
        path, "--slides", 3, "--patches", 5, "--test-slides", 2, "--valid-slides", 1, "--size", 32, "--label-test", "--seed", 4
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}: 30 synthetic patches of 6 slides (train 15, valid 5, test 10)\n"
    assert open_dataset(path).size_px == 32 and open_dataset(path).patches["label"].notna().all()


def test_synth_refuses_sizes_it_cannot_draw(run, tmp_path):
    result = run(tmp_path / "drawn", "--size", 8)
    assert result.exit_code == 2 and not (tmp_path / "drawn").exists()
