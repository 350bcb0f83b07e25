"""Calibration by temperature scaling, fitted on inner slides and shrunk towards 1."""

from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

LOWEST, HIGHEST = 0.01, 100.0
PRIOR_SD = 0.25
"""Standard deviation of the prior on log T: 95 % of its mass lies at T from 0.61 to 1.63."""


def fit_temperature(logits, labels, n_groups: int) -> float:
    """The posterior mode of the temperature T > 0 in sigmoid(logit / T), from logits [N] of class 1 and labels [N] 0 or 1.

    Guo et al. 2017 (arXiv:1706.04599), for two classes, with a normal prior on log T of mean 0 and standard deviation
    `PRIOR_SD`. Errors on patches of one slide are correlated, so the likelihood counts `n_groups` (slides) instead of N. The loss is
    n_groups x mean NLL + (log T / PRIOR_SD)^2 / 2. With four slides T stays near 1; with hundreds the data decide. Deviations from
    the paper: the prior, and Brent's search over log T with T from 0.01 to 100 instead of unbounded L-BFGS on T.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    margins = np.where(labels == 1, logits, -logits)
    found = minimize_scalar(
        lambda log_t: n_groups * np.logaddexp(0, -margins * np.exp(-log_t)).mean() + (log_t / PRIOR_SD) ** 2 / 2,
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Calibrator:
    """A temperature, the number of patches and slides it was fitted on, the prior, and `reason` where it was not fitted."""

    temperature: float = 1.0
    n: int = 0
    n_slides: int | None = None
    reason: str | None = None
    prior_sd: float = PRIOR_SD

    def prob(self, logits) -> np.ndarray:
        """Calibrated prob of class 1, float64 [N]."""
        return expit(np.asarray(logits, dtype=np.float64) / self.temperature)

    def to_dict(self) -> dict:
        """Plain JSON values, the input of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Calibrator":
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


def fit_calibrator(logits, labels, slides=None) -> Calibrator:
    """A Calibrator from logits [N], labels [N] 0 or 1, and slide names [N]. With `slides` None every patch counts as its own slide.

    Without rows, or with one class, the temperature is 1 and `reason` says why. `n_slides` is None where no slides are given.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    n = len(labels)
    n_slides = None if slides is None else int(pd.Series(slides).nunique(dropna=False))
    if n == 0:
        reason = "no labelled inner patches: temperature 1, not calibrated"
    elif labels.min() == labels.max():
        reason = f"the {n} inner patches are all of class {int(labels[0])}: temperature 1, not calibrated"
    else:
        return Calibrator(fit_temperature(logits, labels, n_slides or n), n, n_slides)
    return Calibrator(1.0, n, n_slides, reason)
