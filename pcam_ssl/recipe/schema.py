"""Every key of a recipe, typed and described; the defaults are the base recipe.

Sections with a `name` (method, optim, schedule) are tagged: the name decides which other keys the section takes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_PATCHES = 10**9


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, so a typing error cannot pass as a default; so are `true` as a number and `.inf`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    label_budget: int | None = Field(
        None,
        ge=2,
        le=MOST_PATCHES,
        description="keep this many labels; the rest join the unlabelled pool, their truth used for scoring only",
    )
    allow_conflicts: bool = Field(False, description="train although exact duplicates carry different labels")


class CrossValidation(Section):
    scheme: Literal["grouped", "official", "random"] = Field(
        "grouped",
        description="grouped: folds of whole slides; official: train on train, score on valid; random: leaks, exists to show it",
    )
    folds: int = Field(5, ge=2, le=100, description="number of folds (official has one)")
    inner_share: float = Field(
        0.15, gt=0, lt=0.5, description="share of a fold's training patches, in whole slides, kept for every choice made by score"
    )
    refit: bool | Literal["auto"] = Field(
        "auto",
        description="also train one network on all labelled slides that folds learn from (its scores are not claimed); auto: where method.name is metric",
    )
    folds_file: str | None = Field(
        None,
        min_length=1,
        description="folds.parquet of another run, to hold its folds and inner slides fixed; cv and data.label_budget must agree with it",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="draws the label budget, and folds and inner slides unless folds_file names them; null: as seed. Held while seed changes, runs compare",
    )


# Bounds of what counts epochs and patches: a slip of the keyboard is refused before it fills a disk or overflows an array's integers.
MOST_EPOCHS = 100_000


class Model(Section):
    name: str = Field("resnet18", min_length=1, description="timm backbone, also hf-hub:OWNER/NAME or local-dir:PATH")
    pretrained: bool = Field(True, description="start from published weights")
    image_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="resize patches to this many px on the device, by the backbone's own interpolation; null: the patch, or what the backbone insists on",
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="stochastic depth, where the backbone has it")
    freeze_backbone: bool = Field(False, description="train the head only, on a fixed backbone")
    head_first_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="epochs in which only the head trains, before the backbone joins"
    )
    init: str | None = Field(
        None, min_length=1, description="RUN whose fold-K weights fold K starts from; it must have the same folds"
    )


class Neighbours(Section):
    use: bool | Literal["auto"] = Field(
        "auto", description="also classify by nearest neighbours; auto: where method.name is metric"
    )
    k: Annotated[int, Field(ge=1, le=MOST_PATCHES)] | Literal["inner"] = Field(
        20, description="neighbours that vote; inner: chosen on the inner slides"
    )
    temperature: Annotated[float, Field(gt=0, le=1000)] | Literal["inner"] = Field(
        0.07, description="votes weigh exp(cosine / temperature); inner: chosen on the inner slides"
    )


class Views(Section):
    policy: Literal["none", "d4", "standard", "strong", "file"] = Field(
        "standard",
        description="training views: nothing; D4; D4 + stain as slides differ; D4 + stain further, shift, blur, erasing; D4 + views.file",
    )
    strength: float = Field(1.0, ge=0, le=3, description="scales every magnitude but D4's and those of views.file")
    file: str | None = Field(
        None,
        description="your own policy as albumentations.save writes it, YAML or JSON; read once. Sets views.policy=file unless that is set too",
    )
    transform: dict[str, Any] | None = Field(None, description="what views.file held, so that the run needs the file no more")


# Where float32 still counts; a rate that is merely far too high ends in a loss that is not finite, and the step is named.
LARGEST_RATE = 1e30


class Adam(Section):
    name: Literal["adam"] = "adam"
    lr: float = Field(3e-4, gt=0, le=LARGEST_RATE)
    weight_decay: float = Field(0.0, ge=0, le=100)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)


class AdamW(Section):
    name: Literal["adamw"] = "adamw"
    lr: float = Field(1e-3, gt=0, le=LARGEST_RATE)
    weight_decay: float = Field(0.05, ge=0, le=100, description="not applied to biases, norms, position embeddings and tokens")
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.999, ge=0, lt=1)


class Sgd(Section):
    name: Literal["sgd"] = "sgd"
    lr: float = Field(0.05, gt=0, le=LARGEST_RATE)
    weight_decay: float = Field(1e-4, ge=0, le=100, description="not applied to biases, norms, position embeddings and tokens")
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True


class WarmUp(Section):
    warmup_epochs: float = Field(0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the learning rate over this many epochs")


class Constant(WarmUp):
    name: Literal["constant"] = "constant"


class OneCycle(Section):
    name: Literal["one_cycle"] = "one_cycle"
    rise_share: float = Field(0.25, gt=0, lt=1, description="share of all steps in which the rate rises")
    start_factor: float = Field(0.04, gt=0, le=1, description="first rate over optim.lr")
    final_factor: float = Field(1e-4, ge=0, le=1, description="last rate over optim.lr")


class Cosine(WarmUp):
    name: Literal["cosine"] = "cosine"
    final_factor: float = Field(0.0, ge=0, le=1, description="last rate over optim.lr")


class Cyclic(WarmUp):
    name: Literal["cyclic"] = "cyclic"
    cycle_epochs: float = Field(4.0, gt=0, le=MOST_EPOCHS, description="length of one triangle, up and down")
    low_factor: float = Field(0.1, gt=0, le=1, description="lowest rate over optim.lr")


class Plateau(WarmUp):
    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.5, gt=0, lt=1, description="the rate is multiplied by this where the inner loss stands still")
    patience: int = Field(5, ge=0, le=MOST_EPOCHS, description="epochs without a better inner loss that are borne")
    min_factor: float = Field(1e-3, ge=0, le=1, description="lowest rate over optim.lr")


class Train(Section):
    epochs: int = Field(10, ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(64, ge=2, le=2**16, description="patches a step, over all processes together")
    samples_per_epoch: int | None = Field(None, ge=2, le=MOST_PATCHES, description="cap on the patches an epoch sees")
    clip_norm: float | None = Field(None, gt=0, le=1e9, description="largest gradient norm")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="keep a moving average of the weights and use it (with warm-up of the decay)"
    )
    choose: Literal["inner", "last", "fold"] = Field(
        "last",
        description="epoch kept: best AUROC on the inner slides; the last; best on the scored fold (the old way: scores are marked selected_on_fold)",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: what the device does fast; resolved in the run's recipe.yaml"
    )
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool = Field(False, description="torch.compile the network")
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = Field(
        "auto", description="loader processes; auto: none on CPU, cores - 1 up to 12 on a GPU. Changes no number"
    )
    tensorboard: bool = Field(
        False, description="also write TensorBoard events into fold-K/tensorboard (extra: tensorboard). Changes no number"
    )
    mlflow: bool = Field(
        False,
        description="also log to MLflow: $MLFLOW_TRACKING_URI, else RUN/mlflow.db (extra: mlflow). Changes no number",
    )
    checkpoint_s: float = Field(300.0, gt=0, le=1e9, description="seconds between checkpoints within an epoch. Changes no number")


class Predict(Section):
    d4: bool = Field(True, description="the eight dihedral views")
    random_views: int = Field(0, ge=0, le=64, description="further views drawn from views.policy, seeded by (seed, id, view)")
    mean: Literal["logit", "prob"] = Field("logit", description="space in which views are averaged")
    batch_size: int = Field(128, ge=1, le=2**16)


class Score(Section):
    resamples: int = Field(2000, ge=100, le=1_000_000, description="slide-clustered bootstrap resamples")
    floor: bool = Field(True, description="also score gradient boosting on colour histograms under the same folds")


class Supervised(Section):
    name: Literal["supervised"] = "supervised"
    loss: Literal["bce", "focal"] = Field("bce", description="binary cross-entropy, or focal loss (Lin et al. 2017)")
    pos_weight: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] | None = Field(
        None, description="weight of tumor patches; auto: negatives / positives of the fold's training labels"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="targets become s/2 and 1 - s/2")
    focal_gamma: float = Field(2.0, ge=0, le=100, description="focusing of the focal loss")


EMBEDDING_LOSSES = {
    "arcface": "classes",
    "subcenter_arcface": "classes",
    "triplet": "pairs",
    "supcon": "pairs",
    "multi_similarity": "pairs",
    "proxy_anchor": "classes",
}
"""What a metric loss compares a patch with: other patches (`pairs`), or learned vectors of the classes."""


class Metric(Section):
    name: Literal["metric"] = "metric"
    loss: Literal[tuple(EMBEDDING_LOSSES)] = Field("arcface", description="metric loss on the unit-length embedding")
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
        if EMBEDDING_LOSSES[self.loss] == "pairs":
            return self
        if self.slide_aware:
            *others, last = [name for name, compared in EMBEDDING_LOSSES.items() if compared == "pairs"]
            raise ValueError(
                f"slide_aware chooses pairs of patches and {self.loss} has none; set loss to {', '.join(others)} or {last}"
            )
        if self.miner != "none":
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


Method = Annotated[Supervised | Metric | FixMatch | MeanTeacher, Field(discriminator="name")]
Optim = Annotated[Adam | AdamW | Sgd, Field(discriminator="name")]
Schedule = Annotated[Constant | OneCycle | Cosine | Cyclic | Plateau, Field(discriminator="name")]


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


class Recipe(Section):
    """Everything that decides a run's numbers, beside data and code."""

    seed: int = Field(0, ge=0, lt=2**31)
    data: Data = Data()
    cv: CrossValidation = CrossValidation()
    model: Model = Model()
    method: Method = Supervised()
    views: Views = Views()
    optim: Optim = AdamW()
    schedule: Schedule = OneCycle()
    train: Train = Train()
    predict: Predict = Predict()
    neighbours: Neighbours = Neighbours()
    score: Score = Score()
    pseudo: Pseudo = Pseudo()

    @model_validator(mode="after")
    def _choices_agree(self):
        if self.model.freeze_backbone and self.model.head_first_epochs:
            raise ValueError("model.head_first_epochs has no meaning with model.freeze_backbone; drop one")
        if self.model.head_first_epochs >= self.train.epochs and self.model.head_first_epochs:
            raise ValueError("model.head_first_epochs leaves the backbone no epoch; raise train.epochs")
        if self.predict.random_views and self.views.policy == "none":
            raise ValueError("predict.random_views draws from views.policy, which is none; set views.policy")
        return self

    @model_validator(mode="after")
    def _something_scores(self):
        if self.scored_by == "head":
            return self
        if self.neighbours.use is False:
            raise ValueError(
                "method.classify=false leaves kNN alone to score patches, and neighbours.use is false; set one of them to true"
            )
        if self.pseudo.agreement or self.pseudo.view_std is not None:
            key = "agreement" if self.pseudo.agreement else "view_std"
            raise ValueError(f"pseudo.{key} asks a classifier, and method.classify=false trains none; drop one of the two")
        return self

    @property
    def scored_by(self) -> Literal["head", "knn"]:
        """What gives a run its Predictions: the classifier, or kNN where none is trained (`method.classify: false`)."""
        return "knn" if self.method.name == "metric" and not self.method.classify else "head"

    @model_validator(mode="after")
    def _own_views_are_there_and_used(self):
        known = self.views.file is not None or self.views.transform is not None
        if self.draws_from_file and not known:
            raise ValueError(f"{self.draws_from_file[0]} is file and there is none; set views.file=PATH")
        if self.views.file is not None and not self.draws_from_file:
            raise ValueError("views.file is set and nothing draws from it; set views.policy=file, or pseudo.noise=file")
        return self

    @property
    def draws_from_file(self) -> list[str]:
        """The keys that ask for views of `views.file`."""
        asked = {"views.policy": self.views.policy, "pseudo.noise": self.pseudo.noise}
        asked |= {f"method.{name}": getattr(self.method, name, None) for name in ("weak", "strong")}
        return [key for key, policy in asked.items() if policy == "file"]

    def dump(self) -> dict[str, Any]:
        """Plain nested dict of every key."""
        return self.model_dump(mode="json")


# Keys that say how a machine does the work, not what is computed: they are no part of a run's identity.
MACHINE_KEYS = ("train.device", "train.workers", "train.checkpoint_s", "train.tensorboard", "train.mlflow", "predict.batch_size")
# Keys that decide whether a round begins, not what is in it: they may change between two calls of the command.
STOP_KEYS = ("planted_precision", "planted_stop", "stop_worse", "stop_share", "stop_ratio", "stop_flips")


def learns_from_pool(method: Section) -> bool:
    """Whether a method takes unlabelled patches beside the labels: its section says how many (`ratio`) and in which views."""
    return {"ratio", "weak", "strong", "ramp_epochs"} <= type(method).model_fields.keys()
