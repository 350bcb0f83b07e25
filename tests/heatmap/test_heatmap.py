"""Heat maps of runs: probs of who never saw the slide, numbers and summary, slides cut from a file, refusals in one line."""

import errno
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Barrier, BrokenBarrierError
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from painted_slides import on_glass, places, write_slide
from qupath_objects import read_objects

import pcam_ssl as pcam
from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.heatmap import heatmap, outputs
from pcam_ssl.heatmap.cells import Numbers
from pcam_ssl.heatmap.heatmap import Cut, HeatMap, HeatMaps, slide_scores
from pcam_ssl.runs.run import Run

pytestmark = pytest.mark.trains


def written_probs(map: HeatMap) -> list[float]:
    """Probs of the detections of a slide, in the order of its patches."""
    features = json.loads((map.folder / "detections.geojson").read_text())["features"]
    return [each["properties"]["measurements"]["prob tumor"] for each in features]


def of_slide(table: pd.DataFrame, patches: pd.DataFrame, wsi: str, fold: int) -> list[float]:
    """Probs by `fold` of a slide's patches in the order of the dataset."""
    rows = table[table.fold == fold].set_index("id").prob
    return rows[patches.id[patches.wsi == wsi]].round(6).tolist()


@pytest.fixture(scope="module")
def own(finished, slides, tmp_path_factory):
    """Heat maps of the run's own dataset. Do not write into them."""
    return pcam.heatmap(finished, slides, out=tmp_path_factory.mktemp("maps") / "own")


@pytest.fixture(scope="module")
def foreign(slides, rewrite, tmp_path_factory):
    """Another dataset: a slide with the name of one in a fold but other pixels, the same pixels under another name, and one that is new."""
    patches = open_dataset(slides).patches
    known = patches[patches.split == "train"].wsi.unique()
    test = patches[patches.split == "test"].wsi.unique()

    def change(table: pd.DataFrame) -> pd.DataFrame:
        named = table[table.wsi == test[0]].assign(wsi=known[0])
        copied = table[table.wsi == known[1]].assign(wsi="renamed")
        new = table[table.wsi == test[1]].assign(wsi="new", row=table.row[table.wsi == test[1]])
        made = pd.concat([named, copied, new], ignore_index=True)
        return made.assign(id=[f"f{n}" for n in range(len(made))], split="test", label=pd.array([pd.NA] * len(made), dtype="Int8"))

    path = rewrite(slides, tmp_path_factory.mktemp("data") / "foreign", change)
    return SimpleNamespace(path=path, named=known[0], copied=known[1])


def test_a_slide_in_a_fold_has_the_probs_of_oof(own, finished, slides):
    patches, oof = open_dataset(slides).patches, finished.oof
    folds = finished.folds.groupby("wsi").fold.first()
    assert len(own) == 12 and len(folds) == 10
    for each in own.maps:
        if each.wsi in folds:
            assert (each.fold, each.scored) == (folds[each.wsi], f"out of fold: fold {folds[each.wsi]} never saw this slide")
            assert written_probs(each) == of_slide(oof, patches, each.wsi, folds[each.wsi])
        else:
            assert each.fold is None and each.scored.startswith("mean of all finished folds")
            assert written_probs(each) == of_slide(finished.test, patches, each.wsi, -1)


def test_a_slide_of_the_run_in_another_dataset_is_scored_by_the_fold_that_never_saw_it(foreign, finished, tmp_path):
    """By its name, and by its pixels under another name; a new slide by the mean."""
    made = {each.wsi: each for each in pcam.heatmap(finished, foreign.path, out=tmp_path / "maps").maps}
    folds, patches = finished.folds.groupby("wsi").fold.first(), open_dataset(foreign.path).patches
    table = pcam.predict(finished, foreign.path).table
    expected = {foreign.named: int(folds[foreign.named]), "renamed": int(folds[foreign.copied]), "new": -1}
    for wsi, fold in expected.items():
        assert made[wsi].fold == (None if fold < 0 else fold)
        assert written_probs(made[wsi]) == of_slide(table, patches, wsi, fold)
    assert f"({foreign.copied} under another name)" in made["renamed"].scored


def test_of_a_run_that_is_not_finished_only_finished_folds_speak(finished, foreign, slides, train, tmp_path, capsys):
    fold = int(finished.folds.groupby("wsi").fold.first()[foreign.named])
    run = train(tmp_path / "run", "predict.d4=true", only=[1 - fold])
    message = refused(run, foreign.path, out=tmp_path / "maps", slide=foreign.named)
    assert f"fold {fold}, the only one that never saw it, is not finished" in message
    made = pcam.heatmap(run, slides, out=tmp_path / "maps")
    assert {each.fold for each in made.maps} == {1 - fold, None}
    assert "are left out" in " ".join(capsys.readouterr().err.split())
    map = next(each for each in made.maps if each.fold is not None)
    expected = of_slide(finished.oof, open_dataset(slides).patches, map.wsi, 1 - fold)
    assert written_probs(map) == pytest.approx(expected, abs=1e-5)


def test_slides_torn_over_folds_are_refused(train, slides, tmp_path):
    run = train(tmp_path / "run", "cv.scheme=random")
    train_slide = run.folds.wsi[0]
    with pytest.raises(UserError, match="every network of the run was trained on it"):
        pcam.heatmap(run, slides, out=tmp_path / "maps", slide=train_slide)
    assert not (tmp_path / "maps").exists()


def test_the_official_scheme_leaves_its_training_slides_out(train, slides, tmp_path, capsys):
    run = train(tmp_path / "run", "cv.scheme=official")
    made = pcam.heatmap(run, slides, out=tmp_path / "maps")
    splits = open_dataset(slides).patches.drop_duplicates("wsi").set_index("wsi").split
    assert sorted(splits[each.wsi] for each in made.maps) == ["test", "test", "valid", "valid"]
    assert "8 of 12 slides are left out" in " ".join(capsys.readouterr().err.split())


def test_summary_and_table_have_the_numbers_of_the_maps(own):
    summary = json.loads((own.folder / "summary.json").read_text())
    assert summary == own.to_dict() and len(own.table) == 12
    for each, told in zip(own.maps, summary["slides"], strict=True):
        values, probs = np.load(each.folder / "map.npy"), written_probs(each)
        assert told["tiles"] == len(probs) == 8
        assert told["share"] == pytest.approx(np.nanmean(values[~np.isnan(values)] >= 0.5))
        assert (told["maximum"], told["percentile_99"]) == pytest.approx((max(probs), np.quantile(probs, 0.99)), abs=1e-5)
        assert told["lesion_mm2"] is None
        assert (own.folder / told["page"]).is_file()


def test_a_slide_is_tumor_if_one_of_its_labelled_patches_is(own, slides):
    labels = open_dataset(slides).patches.groupby("wsi").label.max()
    assert {each.wsi: each.label for each in own.maps} == {wsi: None if pd.isna(label) else label for wsi, label in labels.items()}
    assert (labels == 1).any() and labels.isna().any()


def test_a_lesion_of_a_dataset_has_an_area_with_mpp(finished, slides, own, tmp_path):
    """Patches of 32 px at 2 um/px are 0.004096 mm^2."""
    each = next(each for each in own.maps if each.numbers.lesion_cells)
    (made,) = pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=each.wsi, mpp=2.0).maps
    assert made.numbers.lesion_mm2 == pytest.approx(each.numbers.lesion_cells * 0.004096)


def test_auroc_of_slides_by_hand():
    """Slides 0 to 3 normal, 4 to 7 tumor: by maximum all pairs are in order, by share 12 of 16, and the first has no label."""

    def slide(n: int, label, maximum: float, share: float) -> HeatMap:
        return HeatMap(f"s{n}", Path(), Numbers(9, share, 0, None, maximum, maximum), None, "", label)

    shares = [0.1, 0.1, 0.1, 0.9, 0.5, 0.5, 0.5, 0.5]
    maps = [slide(9, None, 0.0, 1.0)] + [slide(n, int(n > 3), 0.1 * n, shares[n]) for n in range(8)]
    scores = slide_scores(maps)
    assert (scores["maximum"]["value"], scores["share"]["value"]) == (1.0, 0.75)
    assert scores["share"]["value"] == auroc(np.arange(8) > 3, np.array(shares))
    assert scores["share"]["low"] < 0.75 < scores["share"]["high"]
    assert scores["share"]["difference"]["value"] == -0.25
    assert slide_scores(maps[:4]) == {}
    said = repr(HeatMaps("runs/a", Path("maps"), maps, scores, "digest", {}))
    assert "AUROC of slides by share called tumor: 0.750 (" in said and "-0.250 (" in said
    assert "page maps/SLIDE/heatmap.html" in said and "0 cells" in said


@pytest.fixture
def whole_slide(tmp_path):
    """A slide of 1 um/px with 16 x 8 patches of 32 px of tissue from (256, 128) on."""
    pytest.importorskip("openslide", reason="OpenSlide is not installed (extra: slides)")
    return write_slide(tmp_path / "case.tif", [on_glass(places(1024, 512), 256, 128, 768, 384)])


def test_a_slide_file_is_cut_and_scored_as_tile_and_predict_do(whole_slide, finished, tmp_path, command):
    done = command("heatmap", finished.path, whole_slide, "--mpp", "1.0", "--out", tmp_path / "maps", "--device", "cpu")
    assert done.code == 0 and "mean of all finished folds" in done.out
    cut = pcam.tile(whole_slide, tmp_path / "cut", size=32, mpp=1.0)
    probs = pcam.predict(finished, cut.path).prob
    told = json.loads((tmp_path / "maps" / "summary.json").read_text())["slides"][0]
    assert (told["tiles"], told["maximum"]) == (128, pytest.approx(probs.max()))
    objects = read_objects(tmp_path / "maps" / "detections.geojson")
    assert [each.bounds for each in objects] == [(x, y, x + 32, y + 32) for x, y in zip(cut.patches.x, cut.patches.y, strict=True)]
    assert [each.measurements["prob tumor"] for each in objects] == pytest.approx(probs.tolist(), abs=1e-6)
    assert np.load(tmp_path / "maps" / "map.npy").shape == (8, 16)
    assert told["lesion_mm2"] == pytest.approx(told["lesion_cells"] * 0.001024)
    assert 'class="whole"' in (tmp_path / "maps" / "heatmap.html").read_text()


def test_the_default_folder_is_in_the_run_and_a_second_time_replaces(finished, slides, tmp_path):
    run = Run(Path(shutil.copytree(finished.path, tmp_path / "run")))
    first = pcam.heatmap(run, slides)
    assert first.folder == run.path / "heatmaps" / slides.name
    again = pcam.heatmap(Run(run.path), slides, slide=first[0].wsi)
    assert [path.parent.name for path in again.folder.glob("*/heatmap.html")].count(first[0].wsi) == 1
    assert len(again) == 1


def test_slides_mapped_in_several_calls_have_the_summary_of_one_call(finished, slides, rewrite, tmp_path):
    names = sorted(finished.folds.wsi.unique())

    def change(patches: pd.DataFrame) -> pd.DataFrame:
        return patches.assign(label=patches.label.where(patches.wsi.isin(names[::2]) | patches.label.isna(), 0))

    data = rewrite(slides, tmp_path / "data", change)
    whole = pcam.heatmap(finished, data, out=tmp_path / "whole", slide=names)
    calls = [[names[0]], names[1:], [names[0]]]
    made = [pcam.heatmap(finished, data, out=tmp_path / "maps", slide=each) for each in calls][-1]
    told = json.loads((tmp_path / "maps" / "summary.json").read_text())
    rows, expected = (sorted(each["slides"], key=lambda row: row["slide"]) for each in (told, whole.to_dict()))
    assert [row["slide"] for row in rows] == names
    # Other patches in a batch, other last digits.
    assert rows == [pytest.approx(row, abs=1e-5) for row in expected]
    assert told["slide_auroc"] == whole.scores != {}
    assert (len(made), len(made.earlier)) == (1, 9) and told == made.to_dict() and "9 slides were mapped before" in repr(made)


def test_two_commands_at_the_same_moment_both_add_their_slides(finished, slides, own, tmp_path, monkeypatch):
    """Each is held up before it writes until the other has read the summary, or a second has passed."""
    both_have_read, scores = Barrier(2), heatmap.slide_scores

    def held_up(maps):
        with suppress(BrokenBarrierError):
            both_have_read.wait(timeout=1)
        return scores(maps)

    monkeypatch.setattr(heatmap, "slide_scores", held_up)
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda n: pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[n].wsi), (0, 1)))
    told = json.loads((tmp_path / "maps" / "summary.json").read_text())["slides"]
    assert {row["slide"] for row in told} == {own[0].wsi, own[1].wsi}
    assert sorted(len(each.earlier) for each in made) == [0, 1]
    # What holds the lock is no file of others.
    assert len(pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[2].wsi).earlier) == 2


def test_a_map_whose_page_is_deleted_is_no_longer_in_the_summary(finished, slides, own, tmp_path):
    first, second = (pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[n].wsi)[0] for n in (0, 1))
    shutil.rmtree(first.folder)
    assert pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[2].wsi).earlier == [second]


@pytest.mark.trains
def test_maps_by_other_networks_are_not_mixed_in(train, finished, slides, own, tmp_path):
    other = train(tmp_path / "other", "seed=3", "cv.seed=0")
    pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=[own[0].wsi, own[1].wsi])
    before = (tmp_path / "maps" / "summary.json").read_bytes()
    message = refused(other, slides, out=tmp_path / "maps", slide=own[0].wsi)
    assert f"holds maps of 1 other slides by other networks than those of {other.path} now" in message
    assert (tmp_path / "maps" / "summary.json").read_bytes() == before
    assert pcam.heatmap(other, slides, out=tmp_path / "maps", slide=[own[0].wsi, own[1].wsi]).earlier == []


def test_maps_of_another_dataset_are_not_mixed_in(finished, slides, own, tmp_path):
    pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[0].wsi)
    summary = tmp_path / "maps" / "summary.json"
    summary.write_text(summary.read_text().replace(open_dataset(slides).digest, "0" * 64))
    assert "holds maps of 1 other slides of another dataset" in refused(finished, slides, out=tmp_path / "maps", slide=own[1].wsi)


def test_a_damaged_summary_is_named(finished, slides, own, tmp_path):
    pcam.heatmap(finished, slides, out=tmp_path / "maps", slide=own[0].wsi)
    (tmp_path / "maps" / "summary.json").write_text('{"run": "a", "slides": [{"slide": 3}]}')
    assert f"{tmp_path / 'maps' / 'summary.json'}: damaged (" in refused(finished, slides, out=tmp_path / "maps", slide=own[1].wsi)


def test_a_blend_maps_too(train, slides, foreign, tmp_path):
    runs = [train(tmp_path / f"run{n}", f"seed={n}", "cv.seed=0") for n in (0, 1)]
    blend = pcam.blend([*runs], out=tmp_path / "blend")
    made = pcam.heatmap(blend, slides, out=tmp_path / "own", slide=foreign.named)[0]
    assert written_probs(made) == of_slide(blend.oof, open_dataset(slides).patches, foreign.named, made.fold)
    assert pcam.heatmap(blend, foreign.path, out=tmp_path / "other", slide="new")[0].fold is None


def test_how_a_slide_is_cut_comes_from_the_dataset_of_the_run():
    learned = SimpleNamespace(size_px=96, manifest={"notes": {"tiling": {"size_px": 96, "mpp": 0.5, "stride_px": 48}}})
    run = SimpleNamespace(path="runs/a")
    made = heatmap._cutting(Path("a.svs"), run, learned, Cut())
    assert (made.size_px, made.mpp, made.stride_px) == (96, 0.5, 96)
    with pytest.raises(UserError, match=r"--mpp 0\.97"):
        heatmap._cutting(Path("a.svs"), run, SimpleNamespace(size_px=96, manifest={"notes": {}}), Cut())
    with pytest.raises(UserError, match="--size 64: runs/a learned from patches of 96 px"):
        heatmap._cutting(Path("a.svs"), run, learned, Cut(size=64))
    with pytest.raises(UserError, match=r"add --size 96 --mpp 0\.97"):
        heatmap._cutting(Path("a.svs"), run, None, Cut())


@pytest.mark.parametrize(
    ("name", "folder"), [("case-1", "case-1"), ("a b", "a_b-"), ("..", "slide-"), ("summary.json", "summary.json-")]
)
def test_the_folder_of_a_slide_has_a_safe_name(name, folder):
    assert heatmap._safe(name).startswith(folder)


def refused(*words, **options) -> str:
    with pytest.raises(UserError) as raised:
        pcam.heatmap(*words, **options)
    assert len(raised.value.problems) == 1
    return raised.value.problems[0]


def test_what_does_not_hold_is_said_in_one_line(finished, slides, own, rewrite, tmp_path):
    maps = tmp_path / "maps"
    name = own[0].wsi
    assert "no such slide. Did you mean" in refused(finished, slides, out=maps, slide=name + "x")
    assert "no such slide or dataset" in refused(finished, tmp_path / "absent.svs", out=maps, mpp=1.0)
    assert "--size" in refused(finished, slides, out=maps, size=32)
    assert "no run there" in refused(tmp_path / "no-run", slides, out=maps)
    placeless = rewrite(slides, tmp_path / "placeless", lambda patches: patches.assign(x=pd.NA, y=pd.NA))
    assert "no coordinates" in refused(finished, placeless, out=maps)
    pcam.synth(tmp_path / "large", slides=2, test_slides=0, patches=2, size=48)
    assert "its patches are 48 px" in refused(finished, tmp_path / "large", out=maps)
    for mpp in (0, -0.5, float("nan"), float("inf"), 1e9):
        assert f"--mpp {mpp:g}: is not between 0 and 100" in refused(finished, slides, out=maps, mpp=mpp)
    far = rewrite(slides, tmp_path / "far", lambda patches: patches.assign(x=patches.x.where(patches.row > 0, 10**9)))
    assert "too many; check its coordinates" in refused(finished, far, out=maps)
    assert not maps.exists()
    maps.mkdir()
    (maps / "notes.txt").write_text("mine")
    assert "holds notes.txt" in refused(finished, slides, out=maps)
    (maps / "notes.txt").rename(tmp_path / "file")
    assert "is a file" in refused(finished, slides, out=tmp_path / "file")


def test_a_run_without_finished_folds_is_refused(finished, foreign, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    for name in ("run.json", "recipe.yaml", "folds.parquet"):
        (begun / name).write_bytes((finished.path / name).read_bytes())
    assert "no fold is finished yet" in refused(begun, foreign.path, out=tmp_path / "maps", slide="new")
    assert not (tmp_path / "maps").exists()


def full_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "heatmap.html")


def test_a_disk_that_fills_leaves_no_map_without_its_page(finished, slides, own, monkeypatch, tmp_path):
    monkeypatch.setattr(outputs, "heat_page", full_disk)
    with pytest.raises((OSError, UserError), match=r"No space left"):
        pcam.heatmap(finished, slides, slide=own[0].wsi, out=tmp_path / "new")
    assert not [path for path in (tmp_path / "new").rglob("*") if path.is_file()]


def test_a_disk_that_fills_leaves_an_earlier_map_as_it_was(finished, slides, own, monkeypatch, tmp_path):
    made = pcam.heatmap(finished, slides, slide=own[0].wsi, out=tmp_path / "map")
    monkeypatch.setattr(outputs, "heat_page", full_disk)
    with pytest.raises((OSError, UserError), match=r"No space left"):
        pcam.heatmap(finished, slides, slide=own[0].wsi, out=tmp_path / "map")
    assert made[0].page.exists()
