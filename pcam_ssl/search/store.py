"""A vector database that holds galleries: Milvus by URL, or a milvus-lite file (Wang et al. 2021, doi:10.1145/3448016.3457550). Extra: `pcam-ssl[milvus]`.

A gallery is a collection. Its vectors are of unit length, so the inner product is cosine.
"""

import json
import logging
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError, first_line
from pcam_ssl.search.milvus_lite import held, lite_file, quiet, stop

EXTRA = "pip install 'pcam-ssl[milvus]'"
TOKEN = "PCAM_SSL_STORE_TOKEN"
"""The environment variable of a cluster's token, or USER:PASSWORD."""
EXACT = "FLAT"
INDEXES = (EXACT, "IVF_FLAT", "IVF_SQ8", "HNSW", "AUTOINDEX")
LITE_INDEXES = (EXACT, "IVF_FLAT", "AUTOINDEX")
CONNECT_S, RETRY_S, REQUEST_S = 10, 0.2, 120
MOST_NEIGHBOURS = 16_384
"""The most that Milvus returns for one query."""
REQUEST_QUERIES = 256
REQUEST_BYTES = 16 * 2**20
"""Of vectors in one insert; Milvus takes 64 MB."""
LONGEST_TEXT = 65_535
UNKNOWN_LABEL, UNKNOWN_TEXT = -1, ""
"""In place of null, which milvus-lite 2.5 does not have."""


@dataclass(frozen=True)
class Store:
    """An open database. Raises UserError where it does not answer or refuses a request."""

    client: Any
    uri: str
    """Without user and password."""
    file: Path | None
    """Of milvus-lite."""

    @property
    def name(self) -> str:
        return "milvus" if self.file is None else "milvus-lite"

    def collections(self) -> list[str]:
        with self._asked():
            return self.client.list_collections(timeout=REQUEST_S)

    def describe(self, name: str) -> tuple[dict[str, Any], int, str | None]:
        """(the facts that it was created with, {} where they are not ours; dimension; type of its index or None) of a collection."""
        with self._asked():
            found = self.client.describe_collection(name, timeout=REQUEST_S)
            indexed = self.client.list_indexes(name, timeout=REQUEST_S)
            index = self.client.describe_index(name, indexed[0], timeout=REQUEST_S) if indexed else {}
        dimension = next((int(field["params"]["dim"]) for field in found["fields"] if field["name"] == "vector"), 0)
        return _facts(found["description"]), dimension, index.get("index_type")

    def create(self, name: str, facts: dict[str, Any], dimension: int) -> None:
        """A collection of patches; `facts` become its description."""
        from pymilvus import DataType

        with self._asked():
            schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False, description=json.dumps(facts))
            schema.add_field("row", DataType.INT64, is_primary=True)
            for text in ("id", "wsi", "split"):
                schema.add_field(text, DataType.VARCHAR, max_length=LONGEST_TEXT)
            schema.add_field("label", DataType.INT8)
            schema.add_field("slide", DataType.INT64)
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dimension)
            self.client.create_collection(name, schema=schema, consistency_level="Strong", timeout=REQUEST_S)

    def create_index(self, name: str, index: str, n: int) -> None:
        """Index a collection that will hold `n` vectors. Raises UserError where the store has no such index."""
        params = self.client.prepare_index_params()
        params.add_index("vector", index_type=index, metric_type="IP", params=build_parameters(index, n))
        with self._asked(f"has no index {index}", f"choose --index {EXACT}"):
            self.client.create_index(name, params)

    def load(self, name: str) -> None:
        """Let the server hold a collection ready."""
        with self._asked():
            self.client.load_collection(name)

    def drop(self, name: str) -> None:
        with self._asked():
            self.client.drop_collection(name, timeout=REQUEST_S)

    def count(self, name: str) -> int:
        """How many patches a collection holds. It must be loaded."""
        with self._asked():
            return self.client.query(name, filter="", output_fields=["count(*)"], timeout=REQUEST_S)[0]["count(*)"]

    def rows(self, name: str, start: int, stop: int) -> np.ndarray:
        """int64, sorted: those of the rows `start` to `stop` - 1 that are there."""
        with self._asked():
            found = self.client.query(name, filter=f"row >= {start} and row < {stop}", output_fields=["row"], timeout=REQUEST_S)
        return np.unique(np.array([each["row"] for each in found], dtype=np.int64))

    def put(self, name: str, rows: np.ndarray, patches: pd.DataFrame, slides: np.ndarray, vectors: np.ndarray) -> None:
        """Write patches [n] (`id`, `wsi`, `split`, `label`) with slide codes and unit vectors float32 [n, D], `row` by `row`."""
        label = patches["label"].fillna(UNKNOWN_LABEL).tolist()
        texts = [patches[name].fillna(UNKNOWN_TEXT).tolist() for name in ("id", "wsi", "split")]
        columns = zip(rows.tolist(), *texts, label, slides.tolist(), vectors, strict=True)
        names = ("row", "id", "wsi", "split", "label", "slide", "vector")
        with self._asked():
            # A patch that is there already is overwritten: two loaders at once, or a request sent twice, leave no second copy.
            self.client.upsert(name, [dict(zip(names, each, strict=True)) for each in columns], timeout=REQUEST_S)

    def search(self, name: str, vectors: np.ndarray, k: int, where: str, params: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
        """Similarity float32 [q, k] and row int64 [q, k] of the nearest that the expression `where` allows; -inf and -1 beyond them."""
        similarity = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        for start in range(0, len(vectors), REQUEST_QUERIES):
            part = vectors[start : start + REQUEST_QUERIES]
            with self._asked():
                answers = self.client.search(
                    name, part, filter=where, limit=k, search_params={"params": params}, output_fields=["row"], timeout=REQUEST_S
                )
            for query, hits in enumerate(answers, start):
                similarity[query, : len(hits)] = [hit["distance"] for hit in hits]
                rows[query, : len(hits)] = [hit["entity"]["row"] for hit in hits]
        return similarity, rows

    def close(self) -> None:
        """End the connection, and milvus-lite's process, so that another program can open its file."""
        self.client.close()
        if self.file is not None:
            stop(self.file)

    @contextmanager
    def _asked(self, what: str = "refused or did not answer", then: str = "mend or start it, and run the same command again"):
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        try:
            yield
        except (MilvusException, RpcError) as error:
            # milvus-lite calls a full disk an unexpected error.
            if self.file is not None and shutil.disk_usage(self.file.parent).free < REQUEST_BYTES:
                raise UserError(f"--store {self.uri}: the disk is full; make room, and run the same command again") from error
            raise UserError(f"--store {self.uri}: {what} ({_reason(error)}); {then}") from error


@contextmanager
def open_store(uri: str, make: bool = False) -> Iterator[Store]:
    """The Store of a URL (`http://HOST:19530/DATABASE`), or of a milvus-lite file `NAME.db`, which `make` makes where it is not there.

    Raises UserError where it cannot be opened, or the extra is not installed, and Held where another command has the file open.
    """
    file, shown = (None, shown_uri(uri)) if is_server(uri) else (lite_file(uri, make), uri)
    pymilvus = _import(lite=file is not None)
    with nullcontext() if file is None else held(file, uri):
        try:
            with nullcontext() if file is None else quiet():
                client = _connected(pymilvus, uri, file)
        except pymilvus.MilvusException as error:
            if file is None:
                raise UserError(
                    f"--store {shown}: cannot be reached ({_reason(error)}); start Milvus there, or name a file that ends in .db"
                ) from error
            raise UserError(
                f"--store {uri}: milvus-lite cannot open it (another program has it open, or it is damaged); "
                "end that program, or name another file"
            ) from error
        store = Store(client, shown, file)
        try:
            yield store
        finally:
            store.close()


def is_server(uri: str) -> bool:
    """Whether a URI is a server's, not a file of milvus-lite."""
    return "://" in uri


def shown_uri(uri: str) -> str:
    """The URI without user and password. Raises UserError for a URI that is no Milvus server's."""
    shown = re.sub("//.*@", "//", uri)
    try:
        parts = urlsplit(uri)
        known = parts.scheme in ("http", "https", "tcp") and parts.hostname is not None and parts.port != 0
    except ValueError:
        # A port that is no number up to 65,535, or half a pair of brackets.
        known = False
    if not known:
        raise UserError(f"--store {shown}: is no address of a database; name http://HOST:19530, or a file that ends in .db")
    return shown


def build_parameters(index: str, n: int) -> dict[str, int]:
    """How an index of `n` vectors is built: as many cells as the root of n (a power of two), or a graph of 16 links."""
    if index.startswith("IVF"):
        return {"nlist": int(2 ** np.clip(np.round(np.log2(max(1, n)) / 2), 0, 16))}
    return {"M": 16, "efConstruction": 200} if index == "HNSW" else {}


def search_parameters(index: str, n: int, k: int) -> dict[str, int]:
    """How widely an index of `n` vectors is searched, as wide as ours of FAISS. milvus-lite reads none of it."""
    if index.startswith("IVF"):
        return {"nprobe": int(np.ceil(np.sqrt(build_parameters(index, n)["nlist"])))}
    return {"ef": max(64, k)} if index == "HNSW" else {}


def _import(lite: bool):
    """The package pymilvus, with milvus-lite where that is needed. Raises UserError where the extra is not installed."""
    try:
        with warnings.catch_warnings():
            # milvus-lite 2.5 imports pkg_resources, which warns that it will be removed.
            warnings.simplefilter("ignore")
            import pymilvus

            if lite:
                import milvus_lite.server_manager  # noqa: F401
    except ImportError as error:
        missing = "setuptools below 82, for milvus-lite," if error.name == "pkg_resources" else error.name
        raise UserError(f"--store: {missing} is not installed; {EXTRA}") from None
    # What it logs with a traceback is told in one line.
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
    return pymilvus


def _connected(pymilvus, uri: str, file: Path | None):
    """A client. A milvus-lite that starts slowly has `CONNECT_S`: it itself waits half a second, too little on a busy machine."""
    from pymilvus.exceptions import ConnectionConfigException

    until = time.monotonic() + (CONNECT_S if file else 0)
    while True:
        try:
            return pymilvus.MilvusClient(str(file or uri), token=os.environ.get(TOKEN, ""), timeout=CONNECT_S)
        except ConnectionConfigException:
            # Its process has ended: the file is locked or damaged.
            raise
        except pymilvus.MilvusException:
            if time.monotonic() > until:
                if file:
                    stop(file)
                raise
            time.sleep(RETRY_S)


def _facts(description: str) -> dict[str, Any]:
    try:
        facts = json.loads(description)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _reason(error: Exception) -> str:
    message = getattr(error, "message", None) or (error.details() if hasattr(error, "details") else "")
    return first_line(RuntimeError(message)) if message else first_line(error)
