import pytest

from pcam_ssl.errors import UserError
from pcam_ssl.search.store import build_parameters, search_parameters, shown_uri


def test_parameters_grow_with_the_gallery():
    assert build_parameters("IVF_FLAT", 2**20) == {"nlist": 1024} and search_parameters("IVF_FLAT", 2**20, 10) == {"nprobe": 32}
    assert build_parameters("IVF_FLAT", 1) == {"nlist": 1}
    assert build_parameters("FLAT", 10) == search_parameters("FLAT", 10, 10) == {}
    assert search_parameters("HNSW", 100, 500) == {"ef": 500}


def test_a_uri_is_shown_without_its_password():
    assert shown_uri("https://user:pw@host:19530/db") == "https://host:19530/db"


@pytest.mark.parametrize(
    "uri", ["ftp://user:pw@host/db", "http://", "http://user:pw@host:99999", "http://host:port", "http://[::1/db"]
)
def test_what_is_no_address_is_refused_without_its_password(uri):
    with pytest.raises(UserError, match="is no address") as refused:
        shown_uri(uri)
    assert "pw" not in str(refused.value)
