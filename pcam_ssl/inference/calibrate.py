"""Probabilities that mean what they say: temperature scaling, fitted on inner slides. No torch."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit

LOWEST, HIGHEST = 0.01, 100.0


def fit_temperature(logits, labels) -> float:
    """The T > 0 with the least mean NLL of sigmoid(logit / T), from logits [N] of class 1 and labels [N] 0 or 1.

    Guo et al. 2017 (arXiv:1706.04599), for two classes. Deviations: the search is Brent's, over log T within 0.01..100, where
    the paper runs L-BFGS on T without bounds; the NLL has one minimum in 1 / T, so both find the same one. Where all logits
    have the sign of their label the NLL falls for ever as T nears 0, and the lower bound comes back.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    margins = np.where(labels == 1, logits, -logits)
    found = minimize_scalar(
        lambda log_t: np.logaddexp(0, -margins * np.exp(-log_t)).mean(),
        bounds=(np.log(LOWEST), np.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


@dataclass(frozen=True)
class Calibrator:
    """A temperature, the number of patches and slides it was fitted on, and why it was not fitted, if so."""

    temperature: float = 1.0
    n: int = 0
    n_slides: int | None = None
    reason: str | None = None

    def prob(self, logits) -> np.ndarray:
        """Calibrated prob of class 1, float64 [N]."""
        return expit(np.asarray(logits, dtype=np.float64) / self.temperature)

    def to_dict(self) -> dict:
        """Plain JSON values; `from_dict` takes them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> "Calibrator":
        return cls(**values)


def fit_calibrator(logits, labels, slides=None) -> Calibrator:
    """A Calibrator from logits [N], labels [N] 0 or 1, and slide names [N] (None where there are none).

    Without rows, with one class, or where every logit has the sign of its label (there is no best T then), the temperature is
    1 and `reason` says so.
    """
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    n = len(labels)
    n_slides = None if slides is None else len(set(slides))
    if n == 0:
        reason = "no labelled inner patches: temperature 1, not calibrated"
    elif labels.min() == labels.max():
        reason = f"the {n} inner patches are all of class {int(labels[0])}: temperature 1, not calibrated"
    elif np.all((logits > 0) == (labels == 1)):
        reason = f"the {n} inner patches are classified without an error, so no temperature is best: temperature 1, not calibrated"
    else:
        return Calibrator(fit_temperature(logits, labels), n, n_slides)
    return Calibrator(1.0, n, n_slides, reason)
