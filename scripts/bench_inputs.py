"""What the benchmarks read, made once and only where asked for, and the machine they run on."""

import datetime
import os
import platform
import zipfile
from functools import cached_property
from pathlib import Path

import torch
from bench_measure import NotMeasured, Place

from pcam_ssl.data.dataset import PIXELS, Dataset, open_dataset
from pcam_ssl.data.folds import labelled_rows
from pcam_ssl.data.importing import import_source
from pcam_ssl.data.pixels import Pixels
from pcam_ssl.data.synthetic import write_synthetic
from pcam_ssl.device import Precision

KAGGLE_MINI = Path(__file__).resolve().parents[2] / "shared/data/kaggle-mini.zip"


class Inputs:
    """Datasets and files of a bench run; what is written goes into `folder`. `quick` asks for sizes that only prove it runs.

    `patches` and `vectors` are sizes of the GPU benchmarks that the user chose, None where they did not.
    """

    def __init__(self, data: Path | None, folder: Path, quick: bool, patches: int | None = None, vectors: int | None = None):
        self.data, self.folder, self.quick = data, folder, quick
        self.patches, self.vectors = patches, vectors

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset named, else the packed Kaggle mini, else synthetic slides."""
        if self.data is not None:
            return open_dataset(self.data)
        if KAGGLE_MINI.is_file():
            return self.kaggle_dataset
        write_synthetic(self.folder / "synthetic")
        return open_dataset(self.folder / "synthetic")

    @property
    def kaggle_zip(self) -> Path:
        if not KAGGLE_MINI.is_file():
            raise NotMeasured("needs ../shared/data/kaggle-mini.zip")
        return KAGGLE_MINI

    @cached_property
    def kaggle_dataset(self) -> Dataset:
        return import_source(self.kaggle_zip, self.folder / "kaggle-mini")

    @cached_property
    def tiffs(self) -> list[Path]:
        """The TIFFs of the unpacked Kaggle download, in the order of the labelled rows of `kaggle_dataset`."""
        with zipfile.ZipFile(self.kaggle_zip) as archive:
            archive.extractall(self.folder / "unpacked")
        return [self.folder / "unpacked/train" / f"{name}.tif" for name in labelled_rows(self.kaggle_dataset.patches)["id"]]


def pixels_of(dataset: Dataset) -> Pixels:
    return Pixels(dataset.path / PIXELS)


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{_processor()}, {os.cpu_count()} cores"


def place(device: torch.device, precision: Precision | None = None) -> Place:
    """Where a row was computed; `precision` None where torch took no part."""
    if precision is None:
        return Place(device_name(device))
    layout = "channels last" if precision.channels_last else "channels first"
    return Place(device_name(device), f"{precision.name}, {layout}", torch.get_num_threads())


def machine() -> str:
    """One line on the machine and the versions that matter for speed."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    parts = [
        f"{_processor()} ({platform.machine()}), {os.cpu_count()} cores, {memory_gb:.0f} GB",
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads",
    ]
    if torch.cuda.is_available():
        parts.append(device_name(torch.device("cuda")))
    return f"{'; '.join(parts)}; {datetime.date.today().isoformat()}"


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
