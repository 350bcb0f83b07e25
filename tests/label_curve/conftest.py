"""What both tests of label curves train on: tiny frozen runs on 20 small slides, with a cache of features of their own."""

import pytest

from pcam_ssl.data.synthetic import write_synthetic


@pytest.fixture(scope="module", autouse=True)
def cache(own_cache):
    """Features of this file alone."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    """20 slides of 8 patches, all labelled: enough of them hold both classes to keep few, and only a budget leaves a pool."""
    path = tmp_path_factory.mktemp("data") / "slides"
    write_synthetic(path, slides=20, test_slides=0, patches=8, size_px=32, seed=4)
    return path


@pytest.fixture(scope="session")
def frozen_settings():
    """Settings of a head that is fitted to the optimum on features of one layer."""
    return ("model.freeze_backbone=true", "cv.inner_folds=2", "features.layers=last", "optim.name=lbfgs", "optim.c=0.01")
