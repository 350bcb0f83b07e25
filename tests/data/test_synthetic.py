import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score

from pcam_ssl.data.dataset import open_dataset
from pcam_ssl.data.splits import make_folds
from pcam_ssl.data.synthetic import draw_slide, draw_slides, write_synthetic
from pcam_ssl.errors import UserError


def draw_both_labels(size_px):
    """The same patches drawn as normal and as tumor."""
    from pcam_ssl.data import synthetic

    look = synthetic._draw_look(np.random.default_rng(0), size_px, 1.0)
    return [
        np.stack([synthetic._draw_patch(np.random.default_rng(n), look, label, size_px) for n in range(20)]) for label in (0, 1)
    ]


@pytest.mark.parametrize("size_px", [48, 96])
def test_tumor_changes_the_central_third_only(size_px):
    normal, tumor = draw_both_labels(size_px)
    changed = (normal != tumor).any(axis=(0, 3))
    middle = slice(size_px // 3, 2 * (size_px // 3))
    inside = changed[middle, middle].copy()
    changed[middle, middle] = False
    blur_px = 2
    grown = changed[size_px // 3 - blur_px : 2 * (size_px // 3) + blur_px, size_px // 3 - blur_px : 2 * (size_px // 3) + blur_px]
    assert inside.mean() > 0.8 and changed.sum() == grown.sum()


def test_tumor_darkens_the_centre():
    normal, tumor = (patches[:, 32:64, 32:64].mean(axis=(1, 2, 3)) for patches in draw_both_labels(96))
    assert (tumor < normal).all()


def test_a_slide_is_a_function_of_seed_and_number():
    again, same, other_slide, other_seed = (
        draw_slide(number, n_patches=3, size_px=32, seed=seed).pixels for number, seed in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert np.array_equal(again, same)
    assert not np.array_equal(again, other_slide) and not np.array_equal(again, other_seed)


def test_shapes_and_ranges():
    pixels, labels, slides = draw_slides(3, first=5, n_patches=10, size_px=48)
    assert pixels.shape == (30, 48, 48, 3) and pixels.dtype == np.uint8
    assert set(labels) <= {0, 1} and list(np.unique(slides)) == [5, 6, 7]


def test_stain_shift_sets_how_far_slides_differ_in_colour():
    spreads = []
    for shift in (0.0, 1.0):
        pixels, _, slides = draw_slides(8, n_patches=6, size_px=32, stain_shift=shift)
        hues = [pixels[slides == number].reshape(-1, 3).mean(axis=0) for number in range(8)]
        spreads.append(np.std([hue[0] - hue[2] for hue in hues]))
    assert spreads[1] > 2 * spreads[0]


def test_share_of_tumor_differs_by_slide():
    _, labels, slides = draw_slides(12, n_patches=40, size_px=32)
    shares = [labels[slides == number].mean() for number in range(12)]
    assert min(shares) < 0.15 and max(shares) > 0.7 and 0.2 < labels.mean() < 0.7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("synthetic") / "slides"
    write_synthetic(path, slides=20, valid_slides=2, test_slides=3, patches=30, size_px=48)
    return open_dataset(path)


def test_the_dataset_has_the_requested_splits(dataset):
    assert dataset.patches.groupby("split").size().to_dict() == {"train": 600, "valid": 60, "test": 90}
    assert dataset.patches.groupby("split")["wsi"].nunique().to_dict() == {"train": 20, "valid": 2, "test": 3}


def test_test_has_no_labels_by_default(dataset, tmp_path):
    test = dataset.patches["split"] == "test"
    assert dataset.patches["label"][test].isna().all() and dataset.patches["label"][~test].notna().all()
    write_synthetic(tmp_path / "labelled", slides=1, test_slides=1, patches=2, size_px=32, label_test=True)
    assert open_dataset(tmp_path / "labelled").patches["label"].notna().all()


def test_more_slides_do_not_change_the_first_ones(dataset, tmp_path):
    write_synthetic(tmp_path / "fewer", slides=2, test_slides=0, patches=30, size_px=48)
    fewer = open_dataset(tmp_path / "fewer")
    assert np.array_equal(fewer.pixels, dataset.pixels[:60]) and list(fewer.patches["id"]) == list(dataset.patches["id"][:60])


def test_an_existing_name_is_refused(dataset):
    with pytest.raises(UserError, match="already exists"):
        write_synthetic(dataset.path, slides=1, patches=1)


def colour_histograms(pixels):
    """Histograms [N, 48] of each channel in 16 bins."""
    return np.stack(
        [np.concatenate([np.bincount(patch[..., c].ravel() // 16, minlength=16) for c in range(3)]) for patch in pixels]
    )


def out_of_fold_auc(dataset, scheme):
    """AUC of a random forest on colour histograms; only the folds differ."""
    train = dataset.patches[dataset.patches["split"] == "train"]
    folds = make_folds(train, scheme=scheme, n_folds=4)
    features, labels = colour_histograms(dataset.pixels[train["row"]]), train["label"].to_numpy(dtype=int)
    scores = np.zeros(len(train))
    for k in range(folds.n_folds):
        learnt, scored = folds.train_mask(k), folds.score_mask(k)
        model = RandomForestClassifier(random_state=0).fit(features[learnt], labels[learnt])
        scores[scored] = model.predict_proba(features[scored])[:, 1]
    return roc_auc_score(labels, scores)


def test_random_folds_give_too_good_scores_and_grouped_folds_do_not(dataset):
    random, grouped = (out_of_fold_auc(dataset, scheme) for scheme in ("random", "grouped"))
    assert random > grouped + 0.1


def test_a_stronger_signal_makes_tumor_nuclei_larger_and_darker():
    from pcam_ssl.data import synthetic

    plain, strong = (synthetic._draw_look(np.random.default_rng(0), 96, 1.0, signal) for signal in (1.0, 2.0))
    for measure in (lambda stamp: (stamp > 0).sum(), lambda stamp: stamp[stamp > 0].mean()):
        sizes = [np.mean([measure(stamp) for stamp in look.tumor_nuclei]) for look in (plain, strong)]
        assert sizes[1] > 1.2 * sizes[0]
    assert all(np.array_equal(one, other) for one, other in zip(plain.nuclei, strong.nuclei, strict=True))


def test_coarse_labels_hide_the_tumor_of_their_share_and_change_nothing_else():
    plain, coarse = (draw_slide(3, n_patches=100, size_px=48, coarse=share) for share in (0.0, 0.25))
    changed = (plain.pixels != coarse.pixels).any(axis=(1, 2, 3))
    assert plain.labels.sum() > 50 and np.array_equal(plain.labels, coarse.labels)
    assert 0.15 < changed.sum() / plain.labels.sum() < 0.35 and plain.labels[changed].all()
