import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from search_run import TWIN

from pcam_ssl.data.dataset import PIXELS, open_dataset
from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.errors import UserError
from pcam_ssl.files import read_json, write_json
from pcam_ssl.search import search as search_module
from pcam_ssl.search.embed import embed_source
from pcam_ssl.search.report import neighbours_text
from pcam_ssl.search.search import search_space
from pcam_ssl.tables import read_table


@pytest.fixture(scope="session")
def patches(unknown_slides) -> pd.DataFrame:
    return open_dataset(unknown_slides).patches


@pytest.fixture(scope="session")
def embeddings(trained_run, unknown_slides, tmp_path_factory) -> np.ndarray:
    """Embeddings [N, D] of the whole dataset by the refit network."""
    out = tmp_path_factory.mktemp("embedded") / "all"
    embed_source(unknown_slides, out, run=trained_run)
    return np.load(out / "embeddings.npy")


def only(result) -> dict:
    (query,) = result.each()
    return query


def found_ids(query: dict) -> list[str]:
    return [neighbour["id"] for neighbour in query["neighbours"]]


def save_image(path, pixels):
    Image.fromarray(pixels).save(path)
    return path


def test_neighbours_are_those_of_other_slides_by_cosine(indexed_run, patches, embeddings):
    asked = patches.iloc[3]
    query = only(search_space(indexed_run, ids=[asked.id], k=6))
    cosine = pd.Series(embeddings @ embeddings[3], index=patches.id)
    expected = cosine[(patches.wsi != asked.wsi).fillna(True).to_numpy()].nlargest(6)
    assert found_ids(query) == expected.index.tolist()
    assert [n["cosine"] for n in query["neighbours"]] == pytest.approx(expected.tolist(), abs=1e-5)
    assert [n["rank"] for n in query["neighbours"]] == [1, 2, 3, 4, 5, 6]
    assert query["left_out"] == {"itself": 1, "own_slide": 7, "duplicates": 0}


def test_any_slide_leaves_out_the_patch_alone(indexed_run, patches):
    query = only(search_space(indexed_run, ids=[patches.id[3]], k=96, any_slide=True))
    assert query["left_out"] == {"itself": 1, "own_slide": 0, "duplicates": 0}
    assert set(found_ids(query)) == set(patches.id) - {patches.id[3]}


def test_where_slides_are_unknown_the_duplicate_is_left_out_and_counted(indexed_run, patches):
    query = only(search_space(indexed_run, ids=[TWIN], k=96))
    original = patches.id[patches.split == "test"].iloc[0]
    assert query["left_out"]["duplicates"] >= 1 and original not in found_ids(query)
    assert len(query["neighbours"]) + query["left_out"]["itself"] + query["left_out"]["duplicates"] == 97


def test_an_image_of_a_turned_patch_does_not_find_that_patch(indexed_run, patches, unknown_slides, tmp_path):
    first = patches[patches.split == "test"].iloc[0]
    file = save_image(tmp_path / "turned.png", np.rot90(np.load(unknown_slides / PIXELS)[first.row]))
    query = only(search_space(indexed_run, images=[file], k=5))
    assert (query["id"], query["image"], query["wsi"]) == (None, str(file), None)
    assert query["left_out"]["itself"] == 0 and query["left_out"]["duplicates"] >= 2
    assert not {first.id, TWIN} & set(found_ids(query))


def test_all_patches_of_a_source_are_queries(indexed_run, slides):
    result = search_space(indexed_run, source=slides, k=3)
    known = open_dataset(slides).patches
    assert result.queries.id.tolist() == known.id.tolist()
    assert (result.left_out.itself == 1).all() and (result.rows >= 0).all()


def test_ids_images_and_source_in_one_search(indexed_run, patches, slides, unknown_slides, tmp_path):
    file = save_image(tmp_path / "one.png", np.load(unknown_slides / PIXELS)[5])
    result = search_space(indexed_run, ids=[TWIN, patches.id[0]], images=[file], source=slides, k=2)
    names = [query["id"] or query["image"] for query in result.each()]
    assert names[:3] == [TWIN, patches.id[0], str(file)] and len(result) == 3 + 96


def test_probs_are_out_of_fold_or_the_mean_of_all_folds(indexed_run, patches):
    query = only(search_space(indexed_run, ids=[patches.id[3]], k=80))
    oof, test = (read_table(indexed_run / f"{name}.parquet")[0] for name in ("oof", "test"))
    wanted = {**oof.set_index("id").prob, **test[test.fold == -1].set_index("id").prob}
    found = {n["id"]: n["prob"] for n in query["neighbours"]}
    assert {n["split"] for n in query["neighbours"] if n["prob"] is not None} >= {"train", "test"}
    assert found == {name: wanted.get(name) for name in found}
    assert query["prob"] == wanted[patches.id[3]]


def test_the_first_search_makes_the_index_and_the_second_reads_it(run_copy, patches, capsys):
    first = search_space(run_copy, ids=[TWIN], k=4)
    assert "embedding 97 patches, once" in capsys.readouterr().err
    second = search_space(run_copy, ids=[TWIN], k=4)
    said = capsys.readouterr().err
    assert "embedding" not in said and "search: 97 patches, index Flat, backend cpu" in said
    assert first.to_dict() == second.to_dict()


def test_facts_name_digests_index_and_backend(indexed_run, unknown_slides):
    facts = search_space(indexed_run, ids=[TWIN], k=4).facts
    notes = read_json(indexed_run / "index" / "index.json")
    assert (facts["network_digest"], facts["dataset_digest"]) == (notes["network_digest"], open_dataset(unknown_slides).digest)
    assert facts["index"]["factory"] == "Flat" and facts["index"]["exact"] and facts["backend"]["name"] == notes["backend"] == "cpu"
    assert (facts["gallery"], facts["k"], facts["any_slide"]) == (97, 4, False)


def test_an_index_of_another_network_is_refused_until_it_is_rebuilt(run_copy, indexed_run):
    shutil.copytree(indexed_run / "index", run_copy / "index")
    shutil.copy(run_copy / "fold-0" / "model.safetensors", run_copy / "refit" / "model.safetensors")
    with pytest.raises(UserError) as caught:
        search_space(run_copy, ids=[TWIN])
    assert "the index is of another network" in str(caught.value)
    assert str(caught.value).endswith(f"rebuild it with `pcam-ssl search {run_copy} --rebuild`")
    assert search_space(run_copy, rebuild=True) is None
    assert len(search_space(run_copy, ids=[TWIN], k=3)) == 1


def test_an_index_of_another_dataset_is_refused(run_copy, indexed_run):
    shutil.copytree(indexed_run / "index", run_copy / "index")
    notes = run_copy / "index" / "index.json"
    write_json(notes, {**read_json(notes), "dataset_digest": "0" * 64})
    with pytest.raises(UserError, match="the index is of another dataset"):
        search_space(run_copy, ids=[TWIN])


def test_another_factory_needs_a_rebuild(run_copy, indexed_run):
    shutil.copytree(indexed_run / "index", run_copy / "index")
    with pytest.raises(UserError) as caught:
        search_space(run_copy, ids=[TWIN], factory="HNSW8")
    command = f"`pcam-ssl search {run_copy} --index HNSW8 --rebuild`"
    assert (
        str(caught.value)
        == f"{run_copy / 'index'}: its factory is Flat, not HNSW8; leave --index out, or rebuild it with {command}"
    )
    search_space(run_copy, factory="HNSW8", rebuild=True)
    facts = search_space(run_copy, ids=[TWIN]).facts
    assert facts["index"]["factory"] == "HNSW8" and not facts["index"]["exact"]


def test_a_bad_factory_is_refused_before_anything_is_embedded(run_copy, capsys):
    with pytest.raises(UserError, match="--index 'Flatt' is no factory string"):
        search_space(run_copy, ids=[TWIN], factory="Flatt")
    assert "embedding" not in capsys.readouterr().err and not (run_copy / "index").exists()


def test_a_missing_backend_is_refused(indexed_run):
    with pytest.raises(UserError, match="backend 'tpu' is unknown; choose auto, cpu, or gpu"):
        search_space(indexed_run, ids=[TWIN], backend="tpu")


def test_a_run_without_refit_names_the_command_that_makes_one(finished):
    with pytest.raises(UserError, match=r"--set cv\.refit=true"):
        search_space(finished.path, ids=["a"])


def test_a_dataset_that_moved_is_named_by_data(run_copy, indexed_run, unknown_slides, slides, tmp_path):
    shutil.copytree(indexed_run / "index", run_copy / "index")
    write_json(run_copy / "run.json", {**read_json(run_copy / "run.json"), "dataset": str(tmp_path / "gone")})
    with pytest.raises(UserError, match=r"its dataset .*gone is not there any more; say where it is with --data DATASET"):
        search_space(run_copy, ids=[TWIN])
    with pytest.raises(UserError, match="made from another dataset"):
        search_space(run_copy, ids=[TWIN], data=slides)
    assert len(search_space(run_copy, ids=[TWIN], data=unknown_slides)) == 1


def test_all_bad_images_are_named_at_once(indexed_run, tmp_path):
    small = save_image(tmp_path / "small.png", np.zeros((16, 16, 3), np.uint8))
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(UserError) as caught:
        search_space(indexed_run, images=[small, tmp_path / "text.png", tmp_path / "none.png"])
    assert caught.value.problems == (
        f"--image {small}: is 16 px, the gallery's patches are 32 px; give a patch of that size and magnification",
        f"--image {tmp_path / 'text.png'}: not an image; give an RGB image of 32 x 32 px",
        f"--image {tmp_path / 'none.png'}: cannot be read (No such file or directory); name an image file",
    )


def test_a_source_of_another_size_is_refused(indexed_run, tmp_path):
    write_synthetic(tmp_path / "large", slides=2, test_slides=0, patches=2, size_px=48)
    with pytest.raises(UserError, match="its patches are 48 px, those of the gallery 32 px"):
        search_space(indexed_run, source=tmp_path / "large")


def test_k_beyond_the_gallery_is_refused(indexed_run):
    with pytest.raises(UserError, match="k 98 does not fit a gallery of 97 patches; choose k from 1 to 97"):
        search_space(indexed_run, ids=[TWIN], k=98)


def test_a_search_without_queries_is_refused_with_the_options(indexed_run):
    with pytest.raises(UserError, match="nothing to search for; name --id ID, --slide S --at X,Y, --image FILE or --source SOURCE"):
        search_space(indexed_run)


def test_more_queries_than_a_page_shows_are_refused_before_the_search(run_copy, slides, tmp_path, monkeypatch):
    monkeypatch.setattr(search_module, "MOST_ON_A_PAGE", 50)
    with pytest.raises(UserError, match="--html: a page shows at most 50 queries, these are 96"):
        search_space(run_copy, source=slides, html=tmp_path / "page.html")
    assert not (run_copy / "index").exists()


def test_a_gallery_of_the_querys_slide_alone_finds_nothing_and_counts_it(tmp_path):
    write_synthetic(tmp_path / "one", slides=1, test_slides=0, patches=5, size_px=32)
    embed_source(tmp_path / "one", tmp_path / "space", model="test_resnet", pretrained=False)
    first = open_dataset(tmp_path / "one").patches.iloc[0]
    result = search_space(tmp_path / "space", ids=[first.id], k=3)
    assert only(result)["neighbours"] == []
    assert neighbours_text(result).splitlines() == [
        f"query {first.id}: {'tumor' if first.label else 'normal'}, slide {first.wsi}, train",
        f"left out: the patch itself, 4 others of its slide {first.wsi}",
        "only 0 of 3: all other patches of the gallery are left out",
    ]


def test_embeddings_of_a_split_are_a_gallery(trained_run, unknown_slides, patches, tmp_path):
    embed_source(unknown_slides, tmp_path / "valid", run=trained_run, split="valid")
    result = search_space(tmp_path / "valid", ids=[patches.id[0]], k=4)
    assert {n["split"] for n in only(result)["neighbours"]} == {"valid"}
    assert (tmp_path / "valid" / "index" / "index.json").exists() and not (trained_run / "index").exists()


def test_embeddings_of_a_packed_folder_need_their_dataset(trained_run, unknown_slides, tmp_path):
    file = save_image(tmp_path / "one.png", np.load(unknown_slides / PIXELS)[0])
    embed_source(file, tmp_path / "space", run=trained_run)
    with pytest.raises(UserError, match=r"whose patches are not kept; `pcam-ssl data import .*one.png DATASET`"):
        search_space(tmp_path / "space", ids=["one"])


def test_embeddings_whose_network_changed_are_refused(run_copy, unknown_slides, tmp_path):
    embed_source(unknown_slides, tmp_path / "space", run=run_copy)
    shutil.copy(run_copy / "fold-0" / "model.safetensors", run_copy / "refit" / "model.safetensors")
    with pytest.raises(UserError, match="its network has changed since; embed again with `pcam-ssl embed`"):
        search_space(tmp_path / "space", ids=[TWIN])


def test_a_place_on_a_slide_is_a_query_and_neighbours_have_places(indexed_run, patches, command):
    row = patches[patches.wsi.notna()].iloc[0]
    done = command("search", indexed_run, "--slide", row.wsi, "--at", f"{row.x},{row.y}", "-k", 2, "--json")
    assert done.code == 0, done.err
    (query,) = json.loads(done.out)["queries"]
    assert (query["id"], query["x"], query["y"]) == (row.id, row.x, row.y)
    places = patches.set_index("id")
    assert [(near["x"], near["y"]) for near in query["neighbours"]] == [
        (places.x[near["id"]], places.y[near["id"]]) for near in query["neighbours"]
    ]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--slide", "s"], "--slide S and --at X,Y: a place on a slide needs both"),
        (["--at", "1,2"], "--slide S and --at X,Y: a place on a slide needs both"),
        (["--slide", "s", "--at", "1;2"], "--at 1;2: write two numbers, X,Y"),
        (["--slide", "s", "--at", "nan,2"], "--at nan,2: write two numbers, X,Y"),
        (["--slide", "s", "--at", "1,inf"], "--at 1,inf: write two numbers, X,Y"),
    ],
)
def test_half_a_place(indexed_run, command, words, problem):
    done = command("search", indexed_run, *words)
    assert (done.code, done.problems) == (2, [problem])
