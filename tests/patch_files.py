"""Small real files in the formats that are imported."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared():
    """The folder of real patches; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real patches are not at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def make_pixels():
    """make_pixels(n, size_px=16, seed=0): random patches uint8 [n, size_px, size_px, 3]."""
    return lambda n, size_px=16, seed=0: np.random.default_rng(seed).integers(0, 256, (n, size_px, size_px, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def encode():
    """encode(pixels or image, "PNG", **options): the bytes of an image file."""

    def encode(image, kind="TIFF", **options) -> bytes:
        buffer = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
        return buffer.getvalue()

    return encode


@pytest.fixture
def make_kaggle(tmp_path, make_pixels, encode):
    """make_kaggle(**changes): a zip as Kaggle's with 6 train patches (a to f) and 2 test patches (g, h); a change replaces
    an entry's content, None removes it. `prefix` puts everything into a folder."""

    def make(changes: dict | None = None, prefix: str = "", name: str = "kaggle.zip") -> Path:
        tifs = [encode(patch) for patch in make_pixels(8)]
        entries = {f"train/{i}.tif": tif for i, tif in zip("abcdef", tifs, strict=False)}
        entries |= {f"test/{i}.tif": tif for i, tif in zip("gh", tifs[6:], strict=True)}
        entries["train_labels.csv"] = "id,label\nf,1\na,0\nb,1\nc,0\nd,1\ne,0\n"  # not in the order of the images
        entries["sample_submission.csv"] = "id,label\nh,0\ng,0\n"
        entries |= changes or {}
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for entry, content in entries.items():
                if content is not None:
                    archive.writestr(prefix + entry, content)
        return tmp_path / name

    return make
