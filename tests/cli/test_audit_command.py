import json

import pytest
from audit_patches import clean_patches, row, write


@pytest.fixture
def dataset(tmp_path):
    """The path of a clean dataset."""
    return write(tmp_path / "clean", *clean_patches()).path


@pytest.fixture
def leaky(tmp_path):
    """The path of a dataset with a train patch in its test split."""
    table, pixels = clean_patches()
    pixels[row(table, "test-b1")] = pixels[row(table, "b1")]
    return write(tmp_path / "leaky", table, pixels).path


def test_a_clean_dataset_exits_0_and_says_what_was_checked(command, dataset):
    done = command("data", "audit", dataset)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{dataset}: 36 patches, 6 slides: no leak found\n")


def test_a_leak_exits_3_with_the_findings_on_stdout_and_the_leak_on_stderr(command, leaky):
    done = command("data", "audit", leaky)
    assert done.code == 3
    assert "LEAK    exact duplicates: 1 group" in done.out
    (problem,) = done.problems
    assert problem.startswith(f"{leaky}: 1 group of exact duplicates (2 patches) are in more than one split (test, train); drop")


def test_json_is_all_there_is_on_stdout_even_with_a_leak_and_a_page(command, leaky, tmp_path):
    done = command("data", "audit", leaky, "--json", "--html", tmp_path / "audit.html")
    assert done.code == 3
    assert json.loads(done.out)["leaks"] == 1
    assert (tmp_path / "audit.html").read_text().startswith("<!DOCTYPE html>")


def test_the_page_is_named(command, dataset, tmp_path):
    done = command("data", "audit", dataset, "--html", tmp_path / "audit.html")
    assert done.out.splitlines()[-1] == f"page {tmp_path / 'audit.html'}"


def test_a_folder_that_is_no_dataset_exits_2(command, tmp_path):
    done = command("data", "audit", tmp_path / "nothing")
    assert (done.code, done.out) == (2, "")
    assert done.problems[0].startswith(f"{tmp_path / 'nothing'}: no such dataset")


def test_a_folder_that_is_no_run_exits_2(command, dataset, tmp_path):
    done = command("data", "audit", dataset, "--run", tmp_path / "nothing")
    assert (done.code, done.problems[0].split(";")[0]) == (2, f"{tmp_path / 'nothing'}: no run there")


@pytest.mark.parametrize("bits", [-1, 7])
def test_bits_beyond_the_search_are_refused(command, dataset, bits):
    done = command("data", "audit", dataset, "--near-bits", bits)
    assert (done.code, len(done.problems)) == (2, 1) and done.problems[0].startswith("--near-bits: ")


def test_an_unknown_device_is_refused(command, dataset):
    assert command("data", "audit", dataset, "--device", "tpu").problems == ["--device tpu: choose auto, cpu, cuda or mps"]


@pytest.mark.processes
def test_the_duplicates_of_pcam_are_found(command, tmp_path):
    from pathlib import Path

    from pcam_ssl.data.importing import import_source

    source = Path(__file__).parents[3] / "shared" / "data" / "pcam-mini" / "train-00000-of-00001.parquet"
    if not source.is_file():
        pytest.skip(f"real patches are not at {source}")
    import_source(source, tmp_path / "pcam-mini")
    done = command("data", "audit", tmp_path / "pcam-mini", "--json")
    told = {finding["check"]: finding["count"] for finding in json.loads(done.out)["findings"] if finding["level"] != "ok"}
    assert (done.code, told) == (0, {"slides in splits": 10000, "exact duplicates": 201})
