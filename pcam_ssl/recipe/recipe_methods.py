"""What a recipe says of its training objective: one section a method, tagged by its name. No torch."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pcam_ssl.recipe.recipe_section import MOST_EPOCHS, Section


class Supervised(Section):
    name: Literal["supervised"] = "supervised"
    loss: Literal["bce", "focal"] = Field("bce", description="binary cross-entropy, or focal loss (Lin et al. 2017)")
    pos_weight: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] | None = Field(
        None, description="weight of tumor patches; auto: negatives / positives of the fold's training labels"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="targets become s/2 and 1 - s/2")
    focal_gamma: float = Field(2.0, ge=0, le=100, description="focusing of the focal loss")


class Metric(Section):
    name: Literal["metric"] = "metric"
    loss: Literal["arcface", "subcenter_arcface", "triplet", "supcon", "multi_similarity", "proxy_anchor"] = Field(
        "arcface", description="metric loss on the unit-length embedding"
    )
    weight: float = Field(0.5, gt=0, le=1e6, description="of the metric loss; the classification loss has weight 1")
    classify: bool = Field(True, description="false: the metric loss alone; the run's predictions are then those of kNN")
    projection: int = Field(128, ge=2, le=2**16, description="dimensions of the embedding")
    slide_aware: bool = Field(
        False,
        description="positives from other slides, negatives of the own slide where it has any (triplet, supcon, multi_similarity)",
    )
    miner: Literal["none", "multi_similarity", "batch_hard", "semihard", "hard"] = Field(
        "none", description="which pairs of a batch count; with slide_aware, of those that slides allow"
    )
    margin_deg: float = Field(28.6, ge=0, lt=90, description="angular margin of the ArcFace losses, in degrees")
    scale: float = Field(16.0, gt=0, le=1e4, description="inverse temperature of the ArcFace losses")
    sub_centers: int = Field(3, ge=1, le=1000, description="class vectors a class has in subcenter_arcface")
    triplet_margin: float = Field(0.2, gt=0, le=2, description="margin of the triplet loss and its miners, in embedding distance")
    temperature: float = Field(0.1, gt=0, le=1000, description="of supcon")
    ms_alpha: float = Field(2.0, gt=0, le=1e4, description="multi_similarity: weight of positives")
    ms_beta: float = Field(50.0, gt=0, le=1e4, description="multi_similarity: weight of negatives")
    ms_base: float = Field(0.5, ge=-1, le=1, description="multi_similarity: similarity that parts positives from negatives")
    proxy_margin: float = Field(0.1, ge=0, le=2, description="proxy_anchor: margin in cosine")
    proxy_alpha: float = Field(32.0, gt=0, le=1e4, description="proxy_anchor: inverse temperature")
    miner_epsilon: float = Field(0.1, ge=0, le=2, description="slack of the multi_similarity miner")

    @model_validator(mode="after")
    def _slides_need_pairs(self):
        if self.slide_aware and self.loss not in ("triplet", "supcon", "multi_similarity"):
            raise ValueError(
                f"slide_aware chooses pairs of patches and {self.loss} has none; set loss to triplet, supcon or multi_similarity"
            )
        if self.miner != "none" and self.loss not in ("triplet", "supcon", "multi_similarity"):
            raise ValueError(f"a miner chooses pairs of patches and {self.loss} has none; set miner to none")
        return self


class FixMatch(Section):
    name: Literal["fixmatch"] = "fixmatch"
    weight: float = Field(1.0, gt=0, le=1e6, description="of the consistency loss; the classification loss has weight 1")
    threshold: float = Field(
        0.95, gt=0.5, lt=1, description="unlabelled patches count whose weak view has a prob above this, or below 1 - this"
    )
    ratio: int = Field(2, ge=1, le=1000, description="unlabelled patches a step for each labelled one")
    weak: Literal["none", "d4", "standard", "strong", "file"] = Field("d4", description="views that make the pseudo-label")
    strong: Literal["none", "d4", "standard", "strong", "file"] = Field("strong", description="views that must agree with it")
    ramp_epochs: float = Field(0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the weight over this many epochs")


class MeanTeacher(Section):
    name: Literal["mean_teacher"] = "mean_teacher"
    # A squared difference of probs has a far smaller gradient than the classification loss; the paper's weights go up to 100.
    weight: float = Field(10.0, gt=0, le=1e6, description="of the consistency loss; the classification loss has weight 1")
    decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="of the teacher, the student's moving average (with warm-up of the decay); it is what is used, or with train.ema_decay that average",
    )
    ratio: int = Field(2, ge=1, le=1000, description="unlabelled patches a step for each labelled one")
    weak: Literal["none", "d4", "standard", "strong", "file"] = Field("d4", description="views that the teacher sees")
    strong: Literal["none", "d4", "standard", "strong", "file"] = Field("standard", description="views that the student sees")
    ramp_epochs: float = Field(
        5.0,
        ge=0,
        le=MOST_EPOCHS,
        description="linear rise of the weight over this many epochs; the paper takes a quarter of the training",
    )


# Methods that learn from a pool of unlabelled patches beside the labels.
CONSISTENCY = (FixMatch, MeanTeacher)
