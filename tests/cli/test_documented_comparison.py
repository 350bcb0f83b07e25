"""The commands of docs/compare.md, from the sweep to new patches, with backbones that train in a second."""

import json

import pytest
from documented import documented

from pcam_ssl.data.dataset import open_dataset

pytestmark = pytest.mark.trains

TINY_BACKBONES = {"resnet34": "test_resnet", "densenet121": "test_vit", "resnet101": "test_efficientnet"}


@pytest.fixture
def place(slides, tmp_path, monkeypatch):
    """A working folder with the datasets that the page names."""
    (tmp_path / "data").mkdir()
    for name in ("pcam", "new"):
        (tmp_path / "data" / name).symlink_to(slides)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_documented_commands_run_one_after_the_other(command, place, slides, tiny):
    settings = [word for each in tiny("train.epochs=1") if not each.startswith("model.name=") for word in ("--set", each)]
    known = open_dataset(slides).patches.query("split == 'train'").id.iloc[0]
    shown = documented("compare.md")
    assert [words[0] for words in shown] == ["baseline", "compare", "blend", "compare", "explain", "report", "predict"]
    for words in shown:
        words = [known if word == "ID" else word for word in words]
        for real, tiny_one in TINY_BACKBONES.items():
            words = [word.replace(real, tiny_one) for word in words]
        done = command(*words, *(settings if words[0] == "baseline" else []))
        assert (done.code, done.problems) == (0, []), words
    for page in ("zoo.html", "compare.html", "runs/blend/report.html"):
        assert (place / page).read_text().startswith("<!DOCTYPE html>")
    assert len(json.loads((place / "runs/blend/run.json").read_text())["blend"]["members"]) == 3
    assert (place / "new.parquet").exists()
