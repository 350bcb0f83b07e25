"""What a recipe says of pseudo-label rounds. No torch."""

from typing import Annotated, Literal

from pydantic import Field

from pcam_ssl.recipe.recipe_section import MOST_EPOCHS, MOST_PATCHES, Section


class Pseudo(Section):
    precision: float | None = Field(
        0.98,
        gt=0.5,
        lt=1,
        description="add patches beyond the prob, per class, at which inner slides prove this precision; null: off",
    )
    precision_level: float = Field(0.95, gt=0.5, lt=1, description="how sure that proof must be (one-sided, slides as clusters)")
    confidence: float | None = Field(
        None, gt=0.5, lt=1, description="add patches whose calibrated prob is above this, or below 1 - this"
    )
    top_share: float | None = Field(None, gt=0, le=1, description="add at most this share of the pool, the surest patches")
    k_best: int | None = Field(None, ge=1, le=MOST_PATCHES, description="add at most this many patches of each class, the surest")
    view_std: float | None = Field(
        None, gt=0, le=1e6, description="leave out patches whose logits differ more than this between views"
    )
    agreement: bool = Field(False, description="leave out patches on which classifier and kNN disagree")
    balance: Literal["none", "prior"] = Field(
        "prior", description="prior: keep the classes in the ratio that the calibrated probs of the pool give them"
    )
    slide_cap: int | None = Field(None, ge=1, le=MOST_PATCHES, description="most patches of one slide, where slides are known")
    duplicate_cap: int | None = Field(None, ge=1, le=MOST_PATCHES, description="most patches of one group of near duplicates")
    round_cap: float | None = Field(None, gt=0, le=1, description="most of the pool that one round may add, as a share")
    label: Literal["hard", "soft"] = Field("hard", description="pseudo-labels are 0 or 1, or the calibrated prob")
    weight: Literal["constant", "confidence", "softmatch"] = Field(
        "constant", description="of a pseudo-label in the loss: all equal; 2 |prob - 0.5|; a truncated Gaussian (Chen et al. 2023)"
    )
    weight_scale: float = Field(1.0, gt=0, le=10, description="multiplies every weight; a label has weight 1")
    ramp_epochs: float = Field(
        0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the weights over the first epochs of a student"
    )
    mix: Annotated[float, Field(gt=0, lt=1)] | Literal["all"] = Field(
        "all",
        description="share of each batch that is pseudo-labelled; all: labels and pseudo-labels shuffled together,"
        " or where a method draws by class (metric) the share of the patches, half at most",
    )
    noise: Literal["same", "d4", "standard", "strong", "file"] = Field(
        "strong", description="training views of pseudo-labelled patches; same: those of views.policy; file: those of views.file"
    )
    pooled: bool = Field(
        False, description="every fold learns from the pseudo-labels of all: for a last submission; out-of-fold scores are withheld"
    )
    planted_share: float = Field(
        0.25, ge=0, lt=0.7, description="share of training slides whose labels are hidden to check the selection; 0: no check"
    )
    planted_folds: int = Field(1, ge=1, le=100, description="folds that are checked so, each by one more training")
    planted_precision: float | None = Field(
        None, gt=0.5, lt=1, description="precision of each class that the check must show; null: pseudo.precision"
    )
    planted_stop: bool = Field(True, description="stop where the check shows less")
    stop_worse: bool = Field(True, description="stop after a round whose inner score is no better than the best before")
    stop_share: float | None = Field(0.01, ge=0, lt=1, description="stop where a round would add less than this share of the pool")
    stop_ratio: float | None = Field(
        0.25, gt=0, lt=1, description="stop where the tumor share of the added differs more than this from the prior"
    )
    stop_flips: float | None = Field(0.1, gt=0, lt=1, description="stop where more than this share of the added changed its label")


# Keys that decide whether a round begins, not what is in it: they may change between two calls of the command.
STOP_KEYS = ("planted_precision", "planted_stop", "stop_worse", "stop_share", "stop_ratio", "stop_flips")
