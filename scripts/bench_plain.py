"""The plain way that the tool is measured against: files opened one by one, common library calls, no tricks."""

import io
import time
import zipfile
from pathlib import Path

import albumentations as A
import numpy as np
import timm
import torch
from albumentations.pytorch import ToTensorV2
from PIL import Image
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.utils.data import DataLoader, Dataset

PREFETCHED = 2


class PlainPatches(Dataset):
    """One TIFF opened per patch, the same views as policy `standard`, normalised on the CPU: float `[3, H, W]` and label."""

    def __init__(self, files: list[Path], labels: np.ndarray):
        self.files, self.labels = files, labels.astype(np.float32)
        self.views = A.Compose(
            [
                A.D4(p=1),
                A.HueSaturationValue(10, 25, 12, p=0.8),
                A.RandomBrightnessContrast(0.2, 0.2, p=0.8),
                A.Normalize(),
                ToTensorV2(),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        return self.views(image=open_patch(self.files[index]))["image"], self.labels[index]


def open_patch(file: Path) -> np.ndarray:
    with Image.open(file) as image:
        return np.asarray(image)


class PlainTraining:
    """fp32, channels first, Adam: what a first script does. Calling it trains `steps` batches and returns their seconds."""

    def __init__(self, backbone: str, patches: PlainPatches, batch_size: int, steps: int, workers: int):
        self.network = timm.create_model(backbone, pretrained=False, num_classes=1)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=3e-4)
        self.patches, self.batch_size, self.steps, self.workers = patches, batch_size, steps, workers

    def __call__(self) -> float:
        # Workers start and fill their queue before the clock starts, and still have work when it stops.
        uncounted, spare = PREFETCHED, PREFETCHED * self.workers
        count = (uncounted + self.steps + spare) * self.batch_size
        order = torch.randint(len(self.patches), (count,)).tolist()
        batches = iter(DataLoader(self.patches, self.batch_size, sampler=order, num_workers=self.workers))
        for _ in range(uncounted):
            self.step(*next(batches))
        begun = time.perf_counter()
        for _ in range(self.steps):
            self.step(*next(batches))
        return time.perf_counter() - begun

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        loss = binary_cross_entropy_with_logits(self.network(images).squeeze(1), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()


def pack_plainly(source: Path, target: Path) -> None:
    """Every TIFF of a zip into one array on disk, by one loop: no checks, statistics, hashes, or digest."""
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.endswith(".tif")]
        packed = np.lib.format.open_memmap(target, "w+", np.uint8, (len(names), 96, 96, 3))
        for row, name in enumerate(names):
            packed[row] = np.asarray(Image.open(io.BytesIO(archive.read(name))))
        packed.flush()
