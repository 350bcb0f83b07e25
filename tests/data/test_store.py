import json

import numpy as np
import pytest

from pcam_ssl.data.dataset import is_dataset, open_dataset
from pcam_ssl.data.writer import DatasetWriter
from pcam_ssl.errors import UserError


@pytest.fixture
def dataset(tmp_path, make_pixels):
    with DatasetWriter(tmp_path / "set", 16, source="here", source_format="test") as writer:
        writer.append(make_pixels(4), list("abcd"), "train")
    return open_dataset(tmp_path / "set")


def test_a_dataset_knows_its_name_and_size(dataset):
    assert (dataset.name, dataset.size_px, len(dataset)) == ("set", 16, 4)
    assert is_dataset(dataset.path)
    assert dataset.sample_submission is None


def test_pixels_are_mapped_read_only(dataset):
    assert isinstance(dataset.pixels, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        dataset.pixels[0] = 0


def test_absent_dataset_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(UserError, match=r"no such dataset; make it with `pcam-ssl data import SOURCE .*nowhere`"):
        open_dataset(tmp_path / "nowhere")


def test_a_run_is_not_a_dataset(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(UserError, match=r"is a run, and a dataset is needed; name the folder"):
        open_dataset(tmp_path)


def test_another_folder_is_not_a_dataset(tmp_path):
    with pytest.raises(UserError, match=r"not a dataset \(it lacks pixels.npy or patches.parquet or manifest.json\)"):
        open_dataset(tmp_path)


def test_truncated_pixels_are_found(dataset):
    whole = (dataset.path / "pixels.npy").read_bytes()
    (dataset.path / "pixels.npy").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"set: the dataset is damaged \(mmap length.*delete the folder and import it again"):
        open_dataset(dataset.path)


def test_pixels_of_another_count_are_found(dataset, make_pixels):
    np.save(dataset.path / "pixels.npy", make_pixels(3))
    with pytest.raises(UserError, match=r"damaged \(patches.parquet lists 4 patches, pixels.npy holds 3\)"):
        open_dataset(dataset.path)


def test_truncated_table_is_found(dataset):
    whole = (dataset.path / "patches.parquet").read_bytes()
    (dataset.path / "patches.parquet").write_bytes(whole[:200])
    with pytest.raises(UserError, match=r"patches.parquet: cannot be read as parquet"):
        open_dataset(dataset.path)


@pytest.mark.parametrize("content", ["{", json.dumps({"source": "here"})])
def test_damaged_manifest_is_found(dataset, content):
    (dataset.path / "manifest.json").write_text(content)
    with pytest.raises(UserError, match=r"manifest.json: damaged \(.*\); delete .* and import it again"):
        open_dataset(dataset.path)
