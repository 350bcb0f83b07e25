"""`pcam-ssl data synth`: a small dataset of synthetic slides."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def synth(
    dataset: Annotated[Path, Argument(metavar="DATASET", help="folder to make")],
    slides: Annotated[int, Option(min=1, max=10_000, help="slides in train")] = 24,
    patches: Annotated[int, Option(min=1, max=100_000, help="patches of each slide")] = 40,
    test_slides: Annotated[int, Option(min=0, max=10_000, help="slides in test")] = 6,
    valid_slides: Annotated[int, Option(min=0, max=10_000, help="slides in valid, for cv.scheme official")] = 0,
    size: Annotated[int, Option(min=32, max=256, help="edge of a patch in px")] = 96,
    stain_shift: Annotated[float, Option(min=0, max=3, help="how much stain differs between slides; 0: not at all")] = 1.0,
    seed: Annotated[int, Option(min=0, max=2**31 - 1, help="another seed draws other slides")] = 0,
    label_test: Annotated[bool, Option("--label-test", help="give the test patches labels, which Kaggle keeps")] = False,
) -> None:
    """Draw small synthetic H&E slides, on which folds that tear slides flatter the score.

    Example: pcam-ssl data synth data/synthetic --slides 24
    """
    from pcam_ssl.data.dataset import open_dataset
    from pcam_ssl.data.synthetic import write_synthetic

    write_synthetic(
        dataset,
        slides=slides,
        valid_slides=valid_slides,
        test_slides=test_slides,
        patches=patches,
        size_px=size,
        stain_shift=stain_shift,
        seed=seed,
        label_test=label_test,
    )
    written = open_dataset(dataset)
    counts = ", ".join(f"{split} {sum(count.values())}" for split, count in written.manifest["counts"].items())
    print(f"{dataset}: {len(written)} synthetic patches of {written.manifest['n_slides']} slides ({counts})")
