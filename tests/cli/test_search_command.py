import json

import pytest
from search_run import TWIN

from pcam_ssl.data.dataset import open_dataset


@pytest.fixture(scope="session")
def known_id(unknown_slides) -> str:
    return open_dataset(unknown_slides).patches.id[3]


def test_search_prints_an_aligned_table_and_the_backend_apart(command, indexed_run, known_id):
    done = command("search", indexed_run, "--id", known_id, "-k", 3)
    lines = done.out.splitlines()
    assert done.code == 0 and len(lines) == 6
    assert lines[0].startswith(f"query {known_id}: ") and lines[2].split() == [
        "rank",
        "cosine",
        "label",
        "prob",
        "split",
        "slide",
        "id",
    ]
    assert "backend" not in done.out and "search: 97 patches, index Flat, backend cpu (FAISS" in done.err


def test_search_prints_json(command, indexed_run, known_id):
    shown = json.loads(command("search", indexed_run, "--id", known_id, "--id", TWIN, "-k", 2, "--json").out)
    assert [query["id"] for query in shown["queries"]] == [known_id, TWIN]
    assert [neighbour["rank"] for neighbour in shown["queries"][1]["neighbours"]] == [1, 2]
    assert shown["backend"]["name"] == "cpu" and shown["index"]["factory"] == "Flat"


def test_search_writes_a_page(command, indexed_run, known_id, tmp_path):
    done = command("search", indexed_run, "--id", known_id, "-k", 2, "--html", tmp_path / "page.html")
    assert done.out == f"{tmp_path / 'page.html'}: 1 query with its nearest 2 of 97 patches\n"
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 3 and known_id in page


def test_search_rebuilds_without_a_query(command, run_copy):
    done = command("search", run_copy, "--rebuild")
    assert (done.code, done.out) == (0, f"{run_copy / 'index'}: rebuilt\n")


def test_search_tells_an_unknown_id_in_one_line(command, indexed_run):
    done = command("search", indexed_run, "--id", "hello")
    assert (done.code, done.out, len(done.problems)) == (2, "", 1)


def test_embed_prints_what_was_made_and_the_next_move(command, trained_run, unknown_slides, tmp_path):
    done = command("embed", trained_run, unknown_slides, "--out", tmp_path / "out", "--split", "test", "--half")
    assert done.out.splitlines() == [
        f"{tmp_path / 'out'}: 17 embeddings of 8 values, float16",
        f"next: pcam-ssl search {tmp_path / 'out'} --id ID",
    ]


def test_embed_of_a_frozen_backbone_prints_its_neighbour_scores(command, slides, tmp_path):
    options = ("--model", "test_resnet", "--no-pretrained", "--knn", "--out")
    done = command("embed", *options, tmp_path / "a", slides)
    assert "train, nearest neighbours of other slides: 64 patches" in done.out and "RANDOM weights" in done.err
    shown = json.loads(command("embed", *options, tmp_path / "b", slides, "--json").out)
    assert shown["network"]["model"] == "test_resnet" and shown["knn"]["train"]["n"] == 64


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("SOURCE",), "embed: give RUN and SOURCE"),
        (("RUN", "SOURCE", "--model", "resnet18"), "or --model NAME and SOURCE alone"),
        (("SOURCE", "--model", "resnet18", "--fold", "1"), "--fold: a backbone named by --model has no folds"),
        (("RUN", "SOURCE", "--no-pretrained"), "--no-pretrained, --weights and --image-size: only with --model"),
        (("RUN", "SOURCE", "--knn"), "--knn: only with --model; RUN has learned from labels"),
        (("RUN", "SOURCE", "--device", "tpu"), "--device tpu: choose auto, cpu, cuda or mps"),
    ],
)
def test_embed_refuses_options_that_do_not_go_together(command, words, told, tmp_path):
    done = command("embed", *words, "--out", tmp_path / "out")
    assert done.code == 2 and len(done.problems) == 1 and told in done.problems[0]
