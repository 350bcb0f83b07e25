"""A cache of features for one test file, so that files neither share features nor touch the user's."""

import pytest


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """PCAM_SSL_CACHE is a new folder throughout the file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PCAM_SSL_CACHE", str(tmp_path_factory.mktemp("features")))
        yield
