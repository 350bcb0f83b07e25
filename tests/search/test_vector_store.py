"""Galleries in a vector database: milvus-lite files beside exact FAISS."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from processes import server
from search_run import TWIN

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.search import milvus_lite, store_gallery
from pcam_ssl.search import store as store_module
from pcam_ssl.search.embed import embed_source
from pcam_ssl.search.gallery import open_embedding_space
from pcam_ssl.search.search import search_space
from pcam_ssl.search.store import Store, open_store
from pcam_ssl.search.store_gallery import Only, collection_of, load_gallery

pytest.importorskip("pymilvus", reason="pymilvus is not installed (extra: milvus)")
server_of = pytest.importorskip("milvus_lite.server", reason="milvus-lite is not installed (extra: milvus)")
# milvus-lite is a process of its own.
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def patches(unknown_slides) -> pd.DataFrame:
    return open_dataset(unknown_slides).patches


@pytest.fixture(scope="module")
def folder(trained_run, unknown_slides, tmp_path_factory):
    """Embeddings of the whole dataset, as `pcam-ssl embed` writes them. Do not write into it."""
    out = tmp_path_factory.mktemp("embedded") / "all"
    embed_source(unknown_slides, out, run=trained_run)
    return out


@pytest.fixture(scope="module")
def stored(folder, tmp_path_factory) -> str:
    """A store with the gallery of `folder`. Do not write into it."""
    uri = str(tmp_path_factory.mktemp("stores") / "gallery.db")
    assert load_gallery(folder, uri)["sent"] == 97
    return uri


def neighbours(folder, store=None, **asked) -> list[list[tuple]]:
    """(id, cosine) of the neighbours of each query."""
    found = search_space(folder, store=store, **asked)
    return [[(near["id"], near["cosine"]) for near in query["neighbours"]] for query in found.each()]


def assert_same(found: list[list[tuple]], expected: list[list[tuple]]) -> None:
    """The same neighbours by the same cosines; those whose cosines differ by rounding alone may stand in another order."""
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert {id for id, _ in ours} == {id for id, _ in theirs}
        np.testing.assert_allclose([cosine for _, cosine in ours], [cosine for _, cosine in theirs], atol=2e-6)


# --- the same neighbours as in memory


@pytest.mark.parametrize("any_slide", [False, True])
def test_a_flat_store_finds_the_neighbours_of_the_exact_index(folder, stored, patches, any_slide):
    asked = {"ids": [*patches.id[[0, 1, 3, 40, 77]], TWIN], "k": 40, "any_slide": any_slide}
    assert_same(neighbours(folder, stored, **asked), neighbours(folder, **asked))


def test_many_queries_find_the_neighbours_of_the_exact_index(folder, stored, unknown_slides, monkeypatch):
    monkeypatch.setattr(store_module, "REQUEST_QUERIES", 3)
    asked = {"source": unknown_slides, "k": 90}
    assert_same(neighbours(folder, stored, **asked), neighbours(folder, **asked))


def test_what_was_left_out_is_counted_as_in_memory(folder, stored, patches):
    asked = [patches.id[3], TWIN]
    counts = [[query["left_out"] for query in search_space(folder, ids=asked, store=store).each()] for store in (None, stored)]
    assert counts[0] == counts[1]


def test_facts_name_the_store_and_its_index(folder, stored, patches):
    facts = search_space(folder, ids=[patches.id[3]], store=stored).facts
    assert facts["backend"] == {"name": "milvus-lite", "reason": stored}
    assert (facts["index"]["factory"], facts["index"]["exact"], facts["gallery"]) == ("FLAT", True, 97)


def test_a_run_is_loaded_as_its_embeddings_are(trained_run, indexed_run, patches, tmp_path, monkeypatch):
    monkeypatch.setattr(store_gallery, "BLOCK", 20)
    uri = str(tmp_path / "run.db")
    facts = load_gallery(trained_run, uri)
    assert (facts["patches"], facts["sent"], facts["index"]) == (97, 97, "FLAT")
    asked = {"ids": list(patches.id[:4]), "k": 10}
    assert_same(neighbours(trained_run, uri, **asked), neighbours(indexed_run, **asked))


def test_no_more_than_k_come_back(folder, stored, patches, monkeypatch):
    asked = []

    def search(self, name, vectors, k, where, params, real=Store.search):
        asked.append((len(vectors), k, where))
        return real(self, name, vectors, k, where, params)

    monkeypatch.setattr(Store, "search", search)
    of_slide = patches.id[patches.wsi == patches.wsi[3]].head(3)
    neighbours(folder, stored, ids=list(of_slide), k=7)
    # Where any slide of the gallery is unknown, duplicates are left out by row, so these queries need not share a request.
    assert sum(n for n, _, _ in asked) == 3 and all(k == 7 for _, k, _ in asked)
    assert all(where.startswith("slide != ") for _, _, where in asked)


# --- filters


@pytest.mark.parametrize(
    "only", [Only(split=["train"]), Only(label=[1]), Only(label=[0, 1], split=["valid", "train"]), Only(split=["test"])], ids=str
)
def test_filters_keep_the_nearest_of_those_that_pass(folder, stored, patches, only):
    asked = {"ids": list(patches.id[[3, 40]]), "k": 12}
    passing = patches
    for name, values in only.to_dict().items():
        passing = passing[passing[name].isin(values)]
    expected = [[each for each in every if each[0] in set(passing.id)][:12] for every in neighbours(folder, ids=asked["ids"], k=97)]
    assert_same(neighbours(folder, stored, only=only, **asked), expected)


def test_a_filter_on_slides_takes_names_that_an_expression_could_not_hold(unknown_slides, trained_run, rewrite, tmp_path):
    names = {'a"b': 0, "line\nbreak": 1, "back\\slash": 2}

    def change(patches):
        slides = sorted(patches.wsi.dropna().unique())
        return patches.assign(wsi=patches.wsi.replace({slides[at]: name for name, at in names.items()}))

    dataset = rewrite(unknown_slides, tmp_path / "named", change)
    embed_source(dataset, tmp_path / "embedded", run=trained_run)
    uri = str(tmp_path / "named.db")
    load_gallery(tmp_path / "embedded", uri)
    patches = open_dataset(dataset).patches
    other = patches.id[patches.wsi.notna() & ~patches.wsi.isin(list(names))].iloc[0]
    for name in names:
        own = set(patches.id[patches.wsi == name])
        (found,) = neighbours(tmp_path / "embedded", uri, ids=[other], k=50, only=Only(slide=[name]))
        assert {id for id, _ in found} == own
        (found,) = neighbours(tmp_path / "embedded", uri, ids=[min(own)], k=97)
        assert not own & {id for id, _ in found} and len(found) > 50


def test_a_filter_that_nothing_passes_says_so(command, folder, stored, patches):
    test_slide = patches.wsi[patches.split == "valid"].iloc[0]
    done = command("search", folder, "--id", patches.id[3], "--store", stored, "--only-split", "train", "--only-slide", test_slide)
    assert (done.code, done.out.splitlines()[-1]) == (0, "only 0 of 10: no other patch passes the filters")


@pytest.mark.parametrize(("option", "value"), [("--only-split", "tran"), ("--only-label", 2), ("--only-slide", "nowhere")])
def test_filters_that_name_nothing_are_refused(command, folder, stored, patches, option, value):
    done = command("search", folder, "--id", patches.id[3], "--store", stored, option, value)
    (problem,) = done.problems
    assert done.code == 2 and problem.startswith(f"{option} {value}: the gallery has no such")


# --- loading


def test_loading_again_sends_nothing(command, folder, tmp_path):
    uri = tmp_path / "gallery.db"
    first, again = (json.loads(command("index", folder, "--store", uri, "--json").out) for _ in range(2))
    assert (first["sent"], again["sent"], again["patches"]) == (97, 0, 97)
    assert first["collection"] == again["collection"]


def interrupted_load(folder, uri, monkeypatch, after: int) -> None:
    """Load with blocks of 10 patches, and stop after so many of them."""
    monkeypatch.setattr(store_gallery, "BLOCK", 10)
    done = []

    def put(self, *arguments, real=Store.put):
        if len(done) == after:
            raise KeyboardInterrupt
        real(self, *arguments)
        done.append(1)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", put)
        with pytest.raises(KeyboardInterrupt):
            load_gallery(folder, uri)


def test_a_load_that_was_interrupted_goes_on_where_it_stopped(command, folder, patches, tmp_path, monkeypatch):
    uri = str(tmp_path / "half.db")
    interrupted_load(folder, uri, monkeypatch, after=3)
    done = command("search", folder, "--id", patches.id[3], "--store", uri)
    (problem,) = done.problems
    assert done.code == 2 and "half loaded (30 of 97 patches" in problem and f"`pcam-ssl index {folder} --store {uri}`" in problem
    sent = []
    monkeypatch.setattr(
        Store, "put", lambda self, name, rows, *rest, real=Store.put: (sent.extend(rows), real(self, name, rows, *rest))
    )
    assert load_gallery(folder, uri)["sent"] == 67
    assert sent == list(range(30, 97))
    asked = {"ids": [patches.id[3], patches.id[60]], "k": 20}
    assert_same(neighbours(folder, uri, **asked), neighbours(folder, **asked))


def load_until_killed(folder, uri, told) -> None:
    """In a process of its own: send three blocks of 10, say so in the file `told`, and wait to be killed."""
    store_gallery.BLOCK, sent = 10, []

    def put(self, *arguments, real=Store.put):
        if len(sent) == 3:
            told.touch()
            time.sleep(600)
        real(self, *arguments)
        sent.append(1)

    Store.put = put
    load_gallery(folder, uri)


def test_a_load_that_was_killed_goes_on_where_it_stopped(command, folder, patches, tmp_path):
    uri, told = str(tmp_path / "killed.db"), tmp_path / "told"
    loading = server().Process(target=load_until_killed, args=(folder, uri, told))
    loading.start()
    try:
        assert until(told.exists)
    finally:
        loading.kill()
        loading.join()
    facts = json.loads(command("index", folder, "--store", uri, "--json").out)
    assert (facts["sent"], facts["patches"]) == (67, 97)
    asked = {"ids": [patches.id[3], patches.id[60]], "k": 20}
    assert_same(neighbours(folder, uri, **asked), neighbours(folder, **asked))


def until(holds, timeout_s: float = 60) -> bool:
    """Whether `holds()` within the time."""
    deadline = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


def test_two_galleries_in_one_file_stay_apart(folder, stored, trained_run, unknown_slides, patches, tmp_path):
    embed_source(unknown_slides, tmp_path / "half", run=trained_run, half=True)
    embed_source(unknown_slides, tmp_path / "train", run=trained_run, split="train")
    uri = str(tmp_path / "two.db")
    names = {load_gallery(each, uri)["collection"] for each in (folder, tmp_path / "half", tmp_path / "train")}
    assert len(names) == 3
    asked = {"ids": [patches.id[3]], "k": 20}
    assert_same(neighbours(folder, uri, **asked), neighbours(folder, **asked))
    assert_same(neighbours(tmp_path / "train", uri, **asked), neighbours(tmp_path / "train", **asked))


def test_rebuild_drops_what_is_there(folder, tmp_path):
    uri = str(tmp_path / "again.db")
    assert [load_gallery(folder, uri, rebuild=True)["sent"] for _ in range(2)] == [97, 97]


@pytest.mark.parametrize("index", ["IVF_FLAT", "AUTOINDEX"])
def test_other_indexes_of_the_store_find_most_neighbours(folder, patches, tmp_path, index):
    uri = str(tmp_path / "other.db")
    assert load_gallery(folder, uri, index=index)["index"] == index
    asked = {"ids": list(patches.id[:5]), "k": 10}
    found, expected = neighbours(folder, uri, **asked), neighbours(folder, **asked)
    shared = [len({id for id, _ in a} & {id for id, _ in b}) for a, b in zip(found, expected, strict=True)]
    assert np.mean(shared) >= 5


# --- what is refused, each in one line


def refused(command, *argv) -> str:
    done = command(*argv)
    assert (done.code, done.out) == (2, ""), done
    (problem,) = done.problems
    assert [line for line in done.err.splitlines() if not line.startswith(("pcam-ssl: ", "search: ", "WARNING: "))] == []
    return problem


def test_a_server_that_is_not_there(command, folder, patches):
    for words in (["index", folder], ["search", folder, "--id", patches.id[3]]):
        problem = refused(command, *words, "--store", "http://user:secret@localhost:9/db")
        assert problem.startswith("--store http://localhost:9/db: cannot be reached") and "secret" not in problem


def test_a_file_that_is_not_there(command, folder, patches, tmp_path):
    problem = refused(command, "search", folder, "--id", patches.id[3], "--store", tmp_path / "none.db")
    assert "is not there" in problem and "pcam-ssl index" in problem
    assert not (tmp_path / "none.db").exists()


def test_a_folder_in_place_of_a_file(command, folder, patches, tmp_path):
    (tmp_path / "gallery.db").mkdir()
    for words in (["index", folder], ["search", folder, "--id", patches.id[3]]):
        assert "gallery.db: is a folder" in refused(command, *words, "--store", tmp_path / "gallery.db")


@pytest.mark.parametrize("name", ["gallery", "a b.db", f"{'a' * 34}.db"])
def test_names_that_milvus_lite_does_not_take(command, folder, tmp_path, name):
    assert "milvus-lite takes a file NAME.db" in refused(command, "index", folder, "--store", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store(command, folder, tmp_path):
    (tmp_path / "notes.db").write_text("not a database")
    assert "is no file of milvus-lite" in refused(command, "index", folder, "--store", tmp_path / "notes.db")
    assert (tmp_path / "notes.db").read_text() == "not a database"


def test_a_damaged_store(command, folder, tmp_path):
    (tmp_path / "bad.db").write_bytes(milvus_lite.SQLITE + b"\1" * 5000)
    assert "milvus-lite cannot open it" in refused(command, "index", folder, "--store", tmp_path / "bad.db")


def test_a_store_of_another_run_says_whose_it_is(command, stored, folder, unknown_slides, patches, tmp_path):
    embed_source(unknown_slides, tmp_path / "frozen", model="test_resnet", pretrained=False)
    problem = refused(command, "search", tmp_path / "frozen", "--id", patches.id[3], "--store", stored)
    assert f"holds no gallery of {tmp_path / 'frozen'}" in problem and f"but of {folder} (network" in problem
    assert f"`pcam-ssl index {tmp_path / 'frozen'} --store {stored}`" in problem


def foreign_collection(folder, uri, dimension: int, **digests) -> None:
    """A collection of the name that the gallery of `folder` has, with other vectors or facts."""
    space = open_embedding_space(folder)
    facts = {"network_digest": space.network_digest, "dataset_digest": space.dataset.digest} | digests
    with open_store(uri, make=True) as store:
        store.create(collection_of(space), facts, dimension)


@pytest.mark.parametrize(
    ("dimension", "digests", "words"),
    [
        (5, {}, "holds vectors of 5 values"),
        (8, {"network_digest": "0" * 64}, "is not one that pcam-ssl made"),
        (8, {"dataset_digest": "0" * 64}, "is not one that pcam-ssl made"),
    ],
)
def test_a_collection_of_another_gallery(command, folder, patches, tmp_path, dimension, digests, words):
    uri = str(tmp_path / "wrong.db")
    foreign_collection(folder, uri, dimension, **digests)
    for argv in (["index", folder], ["search", folder, "--id", patches.id[3]]):
        problem = refused(command, *argv, "--store", uri)
        assert words in problem and "--rebuild" in problem
    assert load_gallery(folder, uri, rebuild=True)["sent"] == 97


def test_a_collection_without_an_index_is_half_loaded(command, folder, patches, tmp_path):
    uri = str(tmp_path / "bare.db")
    foreign_collection(folder, uri, 8)
    assert "half loaded (0 of 97" in refused(command, "search", folder, "--id", patches.id[3], "--store", uri)
    assert load_gallery(folder, uri)["sent"] == 97


def test_an_index_that_milvus_lite_does_not_have_makes_no_file(command, folder, tmp_path):
    problem = refused(command, "index", folder, "--store", tmp_path / "gallery.db", "--index", "HNSW")
    assert problem == "--index HNSW: is no index of the store; choose from FLAT, IVF_FLAT, AUTOINDEX"
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_the_store_refuses_leaves_no_collection(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(store_gallery, "LITE_INDEXES", store_module.INDEXES)
    uri = tmp_path / "gallery.db"
    problem = refused(command, "index", folder, "--store", uri, "--index", "HNSW")
    assert f"--store {uri}: has no index HNSW" in problem and "--index FLAT" in problem
    with open_store(str(uri)) as store:
        assert store.collections() == []


def test_another_index_than_the_one_it_has(command, folder, stored):
    problem = refused(command, "index", folder, "--store", stored, "--index", "IVF_FLAT")
    assert "its index is FLAT, not IVF_FLAT" in problem and "--rebuild" in problem


def test_options_of_the_index_in_memory(command, folder, stored, patches):
    for option in (["--index", "Flat"], ["--rebuild"], ["--backend", "cpu"]):
        problem = refused(command, "search", folder, "--id", patches.id[3], "--store", stored, *option)
        assert problem.startswith(option[0])
    assert "--store URI" in refused(command, "search", folder, "--id", patches.id[3], "--only-label", 1)


def test_more_neighbours_than_there_are(folder, stored, patches):
    with pytest.raises(UserError, match="k 98 does not fit"):
        search_space(folder, ids=[patches.id[3]], k=98, store=stored)


def program(folder, text: str):
    """A folder with `text` in place of milvus-lite's program."""
    folder.mkdir()
    (folder / "milvus").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "milvus").chmod(0o755)
    return folder


def test_a_milvus_lite_that_starts_slowly_is_waited_for(folder, stored, patches, tmp_path, monkeypatch):
    real = server_of.BIN_PATH
    slow = program(tmp_path / "bin", f'sleep 2\nLD_LIBRARY_PATH={real} exec {real}/milvus "$@"')
    monkeypatch.setenv("BIN_PATH", str(slow))
    assert len(neighbours(folder, stored, ids=[patches.id[3]], k=4)[0]) == 4


def test_a_milvus_lite_that_never_answers_is_ended(command, folder, tmp_path, monkeypatch):
    silent = program(tmp_path / "bin", f"echo $$ > {tmp_path}/pid\nexec sleep 600")
    monkeypatch.setenv("BIN_PATH", str(silent))
    monkeypatch.setattr(store_module, "CONNECT_S", 1)
    assert "milvus-lite cannot open it" in refused(command, "index", folder, "--store", tmp_path / "gallery.db")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_file_that_another_command_has_open_stays_its_own(folder, stored):
    code = (
        "from pcam_ssl.errors import Held\nfrom pcam_ssl.search.store import open_store\n"
        f"try:\n    open_store({stored!r}).__enter__()\nexcept Held as held: print(held)"
    )
    with open_store(stored):
        # Twice: milvus-lite refuses the second program, and lets the third one in.
        for _ in range(2):
            said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            assert said.stdout.startswith(f"--store {stored}: another command has it open") and said.stderr == ""


def test_a_file_that_another_program_has_open(command, folder, stored):
    code = f"from milvus_lite.server import Server\nserver = Server({stored!r})\nprint(server.init() and server.start(), flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "True\n"
        assert "milvus-lite cannot open it (another program" in refused(command, "index", folder, "--store", stored)
        other.stdin.close()


def test_a_folder_that_cannot_be_written(command, folder, stored, patches, monkeypatch):
    def acquire(self, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(milvus_lite.FileLock, "acquire", acquire)
    problem = refused(command, "search", folder, "--id", patches.id[3], "--store", stored)
    assert problem.startswith(
        f"--store {stored}: milvus-lite writes in its folder, which cannot be written (Read-only file system)"
    )


def test_a_disk_without_room_is_told_before_anything_is_embedded(command, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Store, "put", lambda *_: pytest.fail("patches were sent"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    assert f"{tmp_path}: not enough disk space" in refused(command, "index", folder, "--store", tmp_path / "gallery.db")


def test_a_disk_that_fills_is_told(stored, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with open_store(stored) as store, pytest.raises(UserError, match="the disk is full; make room"):
        store.count("absent")
