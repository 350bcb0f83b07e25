from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file, read_json
from pcam_ssl.models.artefact import load_network
from pcam_ssl.models.backbone import resolve_backbone
from pcam_ssl.runs.embedder import frozen_embedder
from pcam_ssl.search.embed import embed_source
from pcam_ssl.search.gallery import open_embedding_space
from pcam_ssl.tables import read_table

COLUMNS = ["id", "label", "wsi", "split", "view_hash"]


def written(folder):
    return (
        np.load(folder / "embeddings.npy", mmap_mode="r"),
        read_table(folder / "ids.parquet")[0],
        read_json(folder / "embedding.json"),
    )


def plain_embeddings(folder, pixels):
    """What the network in `folder` says of pixels [N, H, H, 3], in one batch."""
    network, _ = load_network(folder, torch.device("cpu"))
    with torch.inference_mode():
        return network(torch.from_numpy(np.array(pixels)))["embedding"].numpy()


def test_embeddings_are_the_refit_networks_in_the_order_of_the_ids(trained_run, unknown_slides, tmp_path):
    embed_source(unknown_slides, tmp_path / "out", run=trained_run)
    embeddings, ids, facts = written(tmp_path / "out")
    dataset = open_dataset(unknown_slides)
    pd.testing.assert_frame_equal(ids, dataset.patches[COLUMNS])
    assert embeddings == pytest.approx(plain_embeddings(trained_run / "refit", dataset.pixels), abs=1e-5)
    assert (facts["n"], facts["dimension"], facts["dtype"]) == (97, 8, "float32") == (*embeddings.shape, embeddings.dtype)


def test_the_notes_name_network_and_dataset(trained_run, unknown_slides, tmp_path):
    facts, _ = embed_source(unknown_slides, tmp_path / "out", run=trained_run, split="test")
    digest = digest_file(trained_run / "refit" / "model.safetensors")
    assert facts["network"] == {"run": str(trained_run.resolve()), "unit": "refit", "digest": digest}
    dataset = open_dataset(unknown_slides)
    assert facts["dataset"] == {"path": str(unknown_slides.resolve()), "digest": dataset.digest, "split": "test", "packed": True}
    assert facts == read_json(tmp_path / "out" / "embedding.json")
    assert written(tmp_path / "out")[1].split.unique().tolist() == ["test"]


def test_half_halves_the_file_and_keeps_three_digits(trained_run, unknown_slides, tmp_path):
    embed_source(unknown_slides, tmp_path / "whole", run=trained_run)
    embed_source(unknown_slides, tmp_path / "half", run=trained_run, half=True)
    whole, half = (written(tmp_path / name)[0] for name in ("whole", "half"))
    assert half.dtype == np.float16 and half == pytest.approx(whole, abs=1e-3)


def test_a_fold_has_an_embedding_of_its_own(trained_run, unknown_slides, tmp_path):
    facts, _ = embed_source(unknown_slides, tmp_path / "out", run=trained_run, fold=1, split="test")
    pixels = np.load(unknown_slides / PIXELS)[-17:]
    assert facts["network"]["unit"] == "fold-1"
    assert written(tmp_path / "out")[0] == pytest.approx(plain_embeddings(trained_run / "fold-1", pixels), abs=1e-5)


def test_a_folder_of_images_is_a_source(trained_run, unknown_slides, tmp_path):
    (tmp_path / "images").mkdir()
    for name, pixels in zip(("a", "b"), np.load(unknown_slides / PIXELS), strict=False):
        Image.fromarray(pixels).save(tmp_path / "images" / f"{name}.png")
    facts, _ = embed_source(tmp_path / "images", tmp_path / "out", run=trained_run)
    embeddings, ids, _ = written(tmp_path / "out")
    assert ids.id.tolist() == ["a", "b"] and not facts["dataset"]["packed"]
    assert embeddings == pytest.approx(plain_embeddings(trained_run / "refit", np.load(unknown_slides / PIXELS)[:2]), abs=1e-5)


def test_a_name_that_is_taken_is_refused_before_any_work(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out: already exists; choose another name, or delete it first"):
        embed_source(tmp_path / "nothing", tmp_path / "out", run=tmp_path / "nowhere")


def test_embeddings_that_are_not_finite_leave_nothing(run_copy, unknown_slides, tmp_path):
    weights = load_file(run_copy / "refit" / "model.safetensors")
    weights["projection.weight"].fill_(float("nan"))
    save_file(weights, run_copy / "refit" / "model.safetensors")
    with pytest.raises(UserError, match="the embedding of row 0 is not finite"):
        embed_source(unknown_slides, tmp_path / "made" / "out", run=run_copy)
    assert list((tmp_path / "made").iterdir()) == []


def test_a_run_without_refit_names_the_command_that_makes_one(finished, slides, tmp_path):
    wanted = f"`pcam-ssl baseline --data {slides} --recipe {finished.paths.recipe} --set cv.refit=true --out {finished.path}-refit` makes one"
    with pytest.raises(UserError) as caught:
        embed_source(slides, tmp_path / "out", run=finished.path)
    assert wanted in str(caught.value)


def test_a_missing_fold_is_refused_with_those_that_exist(finished, slides, tmp_path):
    with pytest.raises(UserError, match=r"--fold 7: .* has no such finished fold; it has fold-0, fold-1"):
        embed_source(slides, tmp_path / "out", run=finished.path, fold=7)


def test_an_unknown_split_is_refused(trained_run, unknown_slides, tmp_path):
    with pytest.raises(UserError, match="no patches in split valid2; it has test, train, valid"):
        embed_source(unknown_slides, tmp_path / "out", run=trained_run, split="valid2")


def test_random_weights_are_a_warning_and_the_same_again(slides, tmp_path, capsys):
    for name in ("a", "b"):
        torch.rand(3)
        embed_source(slides, tmp_path / name, model="test_resnet", pretrained=False)
    (first, _, facts), (second, _, again) = written(tmp_path / "a"), written(tmp_path / "b")
    assert "test_resnet: --no-pretrained gives RANDOM weights" in capsys.readouterr().err
    assert np.array_equal(first, second) and facts["network"] == again["network"]
    assert facts["network"]["model"] == "test_resnet" and not facts["network"]["pretrained"]


def test_weights_out_of_reach_are_refused_in_words_of_the_command(slides, tmp_path):
    with pytest.raises(
        UserError, match=r"--model: weights of resnet18 cannot be reached .*; add --no-pretrained for random weights"
    ) as caught:
        embed_source(slides, tmp_path / "out", model="resnet18")
    assert "model.pretrained" not in str(caught.value)


def test_a_file_gives_the_weights_of_a_backbone(slides, tmp_path, command):
    torch.manual_seed(1)
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "weights.pt")
    words = ("--model", "test_resnet", "--weights", tmp_path / "weights.pt")
    done = command("embed", *words, slides, "--out", tmp_path / "own")
    assert done.code == 0 and "--weights: test_resnet starts from " in done.err and "RANDOM" not in done.err
    embed_source(slides, tmp_path / "random", model="test_resnet", pretrained=False)
    (own, _, facts), (random, _, _) = written(tmp_path / "own"), written(tmp_path / "random")
    assert not np.allclose(own, random) and facts["network"]["weights"] == str(tmp_path / "weights.pt")
    patch = pd.read_parquet(tmp_path / "own" / "ids.parquet").id.iloc[0]
    assert command("search", tmp_path / "own", "--id", patch).code == 0
    (refused,) = command("embed", *words, "--no-pretrained", slides, "--out", tmp_path / "other").problems
    assert refused.startswith("--weights: is given, and so is --no-pretrained")


def test_a_space_of_a_file_that_changed_is_refused(slides, tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "weights.pt")
    embed_source(slides, tmp_path / "own", model="test_resnet", weights=tmp_path / "weights.pt")
    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), tmp_path / "weights.pt")
    with pytest.raises(UserError, match="its network has changed since"):
        open_embedding_space(tmp_path / "own").embedder()


def test_an_unknown_backbone_is_refused_with_the_nearest(slides, tmp_path):
    with pytest.raises(UserError, match=r"--model: timm has no backbone resnet19\. Did you mean .*resnet18"):
        embed_source(slides, tmp_path / "out", model="resnet19")


def test_a_frozen_space_knows_how_patches_were_resized(monkeypatch):
    def digest(interpolation, size):
        known = resolve_backbone("test_resnet", False)
        told = replace(known, defaults={**known.defaults, "interpolation": interpolation})
        monkeypatch.setattr("pcam_ssl.models.network.resolve_backbone", lambda *_: told)
        return frozen_embedder("test_resnet", 32, pretrained=False, image_size=size).digest

    assert digest("bilinear", 64) != digest("bicubic", 64)
    assert digest("bilinear", None) == digest("bicubic", None) == digest("bilinear", 64)


def test_patches_are_resized_for_a_backbone(slides, tmp_path):
    for name, size in (("own", None), ("large", 64)):
        embed_source(slides, tmp_path / name, model="test_resnet", pretrained=False, image_size=size)
    assert not np.allclose(written(tmp_path / "own")[0], written(tmp_path / "large")[0])
