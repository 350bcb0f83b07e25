"""Calibration on a unit's inner slides."""

import numpy as np
import pandas as pd

from pcam_ssl.inference.calibrate import Calibrator, fit_calibrator
from pcam_ssl.terminal import say
from pcam_ssl.workflows.setting import Setting


def calibrator_of(inner: pd.DataFrame) -> Calibrator:
    """A temperature from Predictions of the inner slides."""
    slides = inner.wsi.to_numpy() if inner.wsi.notna().all() else None
    return fit_calibrator(inner.logit, inner.label.to_numpy(np.int64), slides)


def calibrate(setting: Setting, inner: pd.DataFrame) -> Calibrator:
    """A temperature from Predictions of the inner slides; where none can be fitted, that is said."""
    calibrator = calibrator_of(inner)
    if calibrator.reason and setting.world.leads:
        say(calibrator.reason)
    return calibrator
