"""The benchmarks of a GPU run at tiny sizes on what is here, and only a GPU's numbers are written into its table."""

import math
import sys
from pathlib import Path

import pytest
import torch

from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.neighbors.faiss_index import Backend

SCRIPTS = Path(__file__).parents[1] / "scripts"
TABLE = "<!-- bench cpu begin -->\nold\n<!-- bench cpu end -->\n<!-- bench gpu begin -->\nold\n<!-- bench gpu end -->\n"


@pytest.fixture(scope="module")
def scripts():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import bench
        import bench_fit
        import bench_gpu
        import bench_measure

        patch.setattr(bench_fit, "SIZES", (("test_resnet", 32, 8, 2),))
        patch.setattr(bench_gpu, "NETWORKS", ("test_resnet",))
        yield {"bench": bench, "fit": bench_fit, "gpu": bench_gpu, "measure": bench_measure}


@pytest.fixture(scope="module")
def inputs(scripts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    write_synthetic(folder / "slides", slides=4, test_slides=0, patches=16, size_px=32)
    return scripts["bench"].Inputs(folder / "slides", folder, quick=True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        pytest.param("gpu-fit", 2, marks=pytest.mark.trains),
        pytest.param("gpu-baseline", 1, marks=pytest.mark.trains),
        ("gpu-d4", 1),
    ],
)
def test_a_row_has_a_finite_ratio(scripts, inputs, no_gpu, name, rows):
    measured = scripts["bench"].run(name, inputs)
    assert len(measured) == rows
    for row in measured:
        assert row.name.startswith(f"{name}: test_resnet")
        assert all(0 < value < math.inf for value in (row.ratio.low, row.ratio.median, row.ratio.high))
        assert (row.place.device, row.met) == ("cpu", None)


def test_search_needs_a_gpu(scripts, inputs, no_gpu):
    (row,) = scripts["bench"].run("gpu-search", inputs)
    assert row.ratio is None and "not measured: no GPU" in row.cells()


def test_search_compares_two_backends_of_one_index(scripts, inputs, no_gpu, monkeypatch):
    monkeypatch.setattr(scripts["gpu"], "gpu_backend", lambda: Backend("cpu", "for the test"))
    monkeypatch.setattr(inputs, "vectors", 2_000)
    (row,) = scripts["bench"].run("gpu-search", inputs)
    assert 0 < row.ratio.median < math.inf and row.name == "gpu-search: exact, 2,000 x 512, k = 20"
    assert "100 of 100 queries with the same neighbours" in row.a


def test_operations_of_a_network_are_those_of_its_layers(scripts):
    # ResNet18 at 224 px: 1.82e9 multiplications forward; backward twice as many, less those of the pixels' gradient.
    recipe = scripts["fit"].article("model.name=resnet18", "model.image_size=224")
    assert scripts["fit"].flops_of_image(recipe, 96) == pytest.approx(2 * (3 * 1.82e9 - 0.118e9), rel=0.02)


@pytest.mark.parametrize(
    ("card", "share"),
    [
        ("NVIDIA H100 80GB HBM3", "10% of the peak of 989"),
        ("NVIDIA H100 PCIe", "13% of the peak of 756"),
        ("NVIDIA A100-SXM4-80GB", "32% of the peak of 312"),
        ("NVIDIA A10G", "141% of the peak of 70"),
        ("NVIDIA Unheard Of", "share of peak unknown"),
    ],
)
def test_share_of_the_peak_is_that_of_the_card(scripts, monkeypatch, card, share):
    monkeypatch.setattr(scripts["fit"], "device_name", lambda device: card)
    assert scripts["fit"].share_of_peak(99e12, torch.device("cuda")) == f"99 TFLOP/s, {share}"


def test_gpu_names_all_of_its_benchmarks_and_no_name_leaves_them_out_without_a_gpu(scripts, no_gpu):
    names = scripts["bench"]._names
    assert names(["gpu"]) == ["gpu-fit", "gpu-baseline", "gpu-search", "gpu-d4"]
    assert names(["step", "gpu-d4", "gpu"]) == ["step", "gpu-d4", "gpu-fit", "gpu-baseline", "gpu-search"]
    assert not [name for name in names([]) if name.startswith("gpu")]


def test_a_cpu_writes_nothing_into_the_table_of_the_gpu(scripts, no_gpu, monkeypatch, tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text(TABLE)
    measured = scripts["measure"].Row("gpu-d4", scripts["measure"].Spread(1.0, 1.0, 1.0))
    scripts["bench"].write(page, {name: [measured] for name in scripts["bench"].GPU})
    assert page.read_text() == TABLE
    monkeypatch.setattr(sys, "argv", ["bench.py", "gpu", "--write", str(page)])
    with pytest.raises(SystemExit, match="2"):
        scripts["bench"].main()
    assert "no GPU here" in capsys.readouterr().err


def test_each_row_of_the_page_that_is_not_measured_names_its_command(scripts):
    page = (SCRIPTS.parent / "BENCHMARKS.md").read_text()
    table = page.partition("<!-- bench gpu begin -->")[2].partition("<!-- bench gpu end -->")[0]
    lines = [line for line in table.splitlines() if "not measured" in line]
    # A table that the benchmark wrote has a column `device` and gives the reason in place of the command.
    assert "| device |" in table or len(lines) == 10
    assert "| device |" in table or all(f"bench.py {line[2:].partition(':')[0]}" in line for line in lines)
