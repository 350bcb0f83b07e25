"""Small synthetic slides for tests and the demo. Every slide has its own stain, texture, and share of tumor.

A model that recognises the slide can guess the label from the slide's share of tumor, so its scores are too good where folds
split slides. The true sign of tumor is in the central third of the patch only: larger, darker, crowded nuclei.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

N_STAMPS = 24
FIELD_PX = 384
STAIN_DENSITY = np.array([[0.56, 0.72, 0.36], [0.07, 0.30, 0.15]])
"""Optical density (red, green, blue) of a hematoxylin nucleus and of eosin tissue, before the shift of a slide."""


@dataclass(frozen=True)
class SlideLook:
    """The appearance shared by the patches of one slide."""

    stain: np.ndarray
    """Optical density (red, green, blue) of hematoxylin and eosin at full strength, [2, 3]."""
    fibres: np.ndarray
    """Eosin texture [F, F], mean about 1."""
    gaps: np.ndarray
    """Smooth field [F, F] of ranks in [0, 1]; tissue has gaps where the ranks are lowest."""
    nuclei: list[np.ndarray]
    tumor_nuclei: list[np.ndarray]
    crowding: float
    tumor_share: float
    blur_px: float


@dataclass(frozen=True)
class SyntheticSlide:
    """Patches of one slide: pixels uint8 [P, H, H, 3], labels [P] (1 = tumor), places [P, 2] as x, y in px."""

    pixels: np.ndarray
    labels: np.ndarray
    places: np.ndarray


def draw_slide(
    number: int,
    *,
    n_patches: int = 40,
    size_px: int = 96,
    stain_shift: float = 1.0,
    tumor_signal: float = 1.0,
    coarse: float = 0.0,
    seed: int = 0,
) -> SyntheticSlide:
    """The patches of slide `number`, a pure function of the arguments.

    `tumor_signal` scales how much larger and darker tumor nuclei are than others; at 2 a small network learns it in fewer steps. `coarse` is
    the share of tumor patches that show no tumor, as where labels come from outlines drawn on the slide. Only the slide gives these away.
    """
    generator = np.random.default_rng((seed, number))
    look = _draw_look(generator, size_px, stain_shift, tumor_signal)
    labels = (generator.random(n_patches) < look.tumor_share).astype(np.int8)
    cells = generator.permutation(n_patches)
    columns = int(np.ceil(np.sqrt(n_patches)))
    places = np.stack([cells % columns, cells // columns], axis=1) * size_px
    # A generator of its own, so that the patches that do show their label are the same at any `coarse`.
    shown = labels * (np.random.default_rng((seed, number, n_patches, 1)).random(n_patches) >= coarse)
    pixels = np.stack(
        [_draw_patch(np.random.default_rng((seed, number, n)), look, label, size_px) for n, label in enumerate(shown)]
    )
    return SyntheticSlide(pixels, labels, places)


def draw_slides(n_slides: int, *, first: int = 0, **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels uint8 [N, H, H, 3], labels [N], and slide numbers [N] of `n_slides` slides; options as in `draw_slide`."""
    slides = [draw_slide(number, **options) for number in range(first, first + n_slides)]
    numbers = np.repeat(np.arange(first, first + n_slides), [len(slide.labels) for slide in slides])
    return np.concatenate([slide.pixels for slide in slides]), np.concatenate([slide.labels for slide in slides]), numbers


def write_synthetic(
    path: Path | str,
    *,
    slides: int = 24,
    valid_slides: int = 0,
    test_slides: int = 6,
    patches: int = 40,
    size_px: int = 96,
    stain_shift: float = 1.0,
    tumor_signal: float = 1.0,
    coarse: float = 0.0,
    seed: int = 0,
    label_test: bool = False,
) -> None:
    """Write a DATASET of synthetic slides with `patches` patches each. As on Kaggle, test has no labels unless `label_test`.

    A slide does not depend on the number of slides. Raises UserError where `path` exists.
    """
    from pcam_ssl.data.writer import DatasetWriter
    from pcam_ssl.terminal import progress

    plan = [
        (split, n) for split, count in (("train", slides), ("valid", valid_slides), ("test", test_slides)) for n in range(count)
    ]
    first = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
    look = {"size_px": size_px, "stain_shift": stain_shift, "tumor_signal": tumor_signal, "coarse": coarse, "seed": seed}
    source = f"synthetic slides, seed {seed}, stain shift {stain_shift:g}"
    source += f", tumor signal {tumor_signal:g}, coarse {coarse:g}" if (tumor_signal, coarse) != (1, 0) else ""
    with (
        DatasetWriter(path, size_px, source=source, source_format="synthetic", expected=len(plan) * patches) as writer,
        progress("drawing", len(plan) * patches) as advance,
    ):
        for split, n in plan:
            slide = draw_slide(first[split] + n, n_patches=patches, **look)
            name = f"synthetic-{split}-{n:03d}"
            ids = [hashlib.sha1(f"{seed}/{name}/{place}".encode()).hexdigest() for place in range(patches)]
            labels = None if split == "test" and not label_test else slide.labels
            x, y = slide.places.T
            writer.append(slide.pixels, ids, split, labels=labels, wsi=name, x=x, y=y)
            advance(patches)


def _draw_look(generator: np.random.Generator, size_px: int, stain_shift: float, tumor_signal: float = 1.0) -> SlideLook:
    stain = STAIN_DENSITY * np.exp(stain_shift * (generator.normal(0, 0.25, (2, 1)) + generator.normal(0, 0.2, (2, 3))))
    scale = size_px / 96
    # At 1, tumor nuclei are 1.1 px (of 96) larger in radius than others, and by 0.05 darker; above 1, colour counts more than size, which the middle of a small patch bounds.
    larger_px, darker = (tumor_signal - 1) * 1.1 * scale, (tumor_signal - 1) * 0.3
    fibres = _draw_fibres(generator, generator.uniform(0.7, 1.3) * scale, generator.uniform(2, 6) * scale)
    gaps = gaussian_filter(generator.normal(size=(FIELD_PX, FIELD_PX)), generator.uniform(7, 12) * scale, mode="wrap")
    return SlideLook(
        stain=stain,
        fibres=np.clip(1 + generator.uniform(0.15, 0.4) * fibres, 0.2, 2),
        gaps=gaps.ravel().argsort().argsort().reshape(gaps.shape) / gaps.size,
        nuclei=[
            _draw_nucleus(generator, generator.uniform(2.8, 4.4) * scale, generator.uniform(0.55, 0.95)) for _ in range(N_STAMPS)
        ],
        tumor_nuclei=[
            _draw_nucleus(generator, generator.uniform(4.0, 5.4) * scale + larger_px, generator.uniform(0.6, 1.0) + darker)
            for _ in range(N_STAMPS)
        ],
        crowding=generator.uniform(0.35, 0.8),
        tumor_share=np.clip(generator.beta(0.4, 0.6), 0.03, 0.97),
        blur_px=generator.uniform(0.3, 0.7) * scale,
    )


def _draw_fibres(generator: np.random.Generator, width_px: float, length_px: float) -> np.ndarray:
    """Streaky periodic noise [F, F] of unit standard deviation along one random angle."""
    fy, fx = np.meshgrid(np.fft.fftfreq(FIELD_PX), np.fft.fftfreq(FIELD_PX), indexing="ij")
    angle = generator.uniform(0, np.pi)
    along, across = fx * np.cos(angle) + fy * np.sin(angle), fy * np.cos(angle) - fx * np.sin(angle)
    blur = np.exp(-2 * np.pi**2 * ((along * length_px) ** 2 + (across * width_px) ** 2))
    fibres = np.fft.ifft2(np.fft.fft2(generator.normal(size=(FIELD_PX, FIELD_PX))) * blur).real
    return fibres / fibres.std()


def _draw_nucleus(generator: np.random.Generator, radius_px: float, strength: float) -> np.ndarray:
    """Hematoxylin density [R, R] of one nucleus: an uneven ellipse with grainy chromatin and a darker rim."""
    reach = int(np.ceil(1.35 * radius_px)) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    angle, stretch = generator.uniform(0, np.pi), generator.uniform(1, 1.3)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    wobble = 1 + 0.07 * np.cos(3 * np.arctan2(across, along) + generator.uniform(0, 6))
    distance = np.hypot(along / stretch, across * stretch) / (radius_px * wobble)
    chromatin = gaussian_filter(generator.normal(size=x.shape), 0.8)
    inside = np.clip((1 - distance) * radius_px + 0.5, 0, 1)
    return strength * inside * np.clip(0.72 + 0.28 * distance**2 + 0.3 * chromatin, 0.3, 1.2)


def _draw_patch(generator: np.random.Generator, look: SlideLook, label: int, size_px: int) -> np.ndarray:
    """One patch uint8 [H, H, 3]. With the same generator, both labels give the same pixels outside the central third."""
    scale = size_px / 96
    tissue = _crop(generator, look.fibres, size_px)
    torn = generator.choice([0.0, 0.0, 0.0, 0.15, 0.4]) * generator.random()
    solid = np.clip((_crop(generator, look.gaps, size_px) - torn) * 25 * scale + 0.5, 0, 1)
    kept = np.clip(look.crowding + generator.normal(0, 0.25), 0.05, 0.95)
    hematoxylin = _scatter(generator, look.nuclei, size_px, 8.5 * scale, kept, margin_px=size_px // 4) * solid
    eosin = tissue * solid
    noise = generator.normal(0, 2.0, (size_px, size_px, 3))
    if label:
        middle = slice(size_px // 3, 2 * (size_px // 3))
        nest = _scatter(generator, look.tumor_nuclei, size_px // 3, 9.5 * scale, generator.uniform(0, 0.8), margin_px=0)
        _stamp(nest, look.tumor_nuclei[generator.integers(N_STAMPS)], *(size_px // 6 + generator.integers(-2, 3, 2)))
        cleared = np.clip(1.4 * gaussian_filter((nest > 0).astype(float), 2.5 * scale, mode="constant"), 0, 1)
        hematoxylin[middle, middle] = np.maximum(hematoxylin[middle, middle] * (1 - cleared) + 0.1 * cleared, nest)
        eosin[middle, middle] = np.maximum(eosin[middle, middle], 0.8 * cleared)
    hematoxylin += 0.12 * solid
    density = gaussian_filter(hematoxylin, look.blur_px, truncate=2)[..., None] * look.stain[0] + eosin[..., None] * look.stain[1]
    return np.clip(np.rint(244 * 10**-density + noise), 0, 255).astype(np.uint8)


def _crop(generator: np.random.Generator, field: np.ndarray, size_px: int) -> np.ndarray:
    y, x = generator.integers(0, FIELD_PX, 2)
    return np.take(np.take(field, np.arange(y, y + size_px), axis=0, mode="wrap"), np.arange(x, x + size_px), axis=1, mode="wrap")


def _scatter(generator, stamps: list[np.ndarray], size_px: int, spacing_px: float, kept: float, margin_px: int) -> np.ndarray:
    """Nuclei [H, H] on a share `kept` of the places of a jittered grid; none crosses the edge by more than the margin."""
    canvas = np.zeros((size_px + 2 * margin_px,) * 2)
    ticks = np.arange(0, len(canvas), spacing_px)
    places = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    places[1::2, :, 0] += spacing_px / 2
    places = places[generator.random(places.shape[:2]) < kept]
    places = np.rint(places + generator.normal(0, 0.17 * spacing_px, places.shape)).astype(int)
    for (x, y), number in zip(places, generator.integers(0, len(stamps), len(places)), strict=True):
        _stamp(canvas, stamps[number], y, x)
    return canvas[margin_px : margin_px + size_px, margin_px : margin_px + size_px]


def _stamp(canvas: np.ndarray, stamp: np.ndarray, y: int, x: int) -> None:
    """Draw a nucleus into the canvas around (y, x), unless it would cross the edge."""
    top, left = y - len(stamp) // 2, x - len(stamp) // 2
    if min(top, left) >= 0 and max(top, left) + len(stamp) <= len(canvas):
        target = canvas[top : top + len(stamp), left : left + len(stamp)]
        np.maximum(target, stamp, out=target)
