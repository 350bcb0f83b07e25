"""Every key of a recipe with its type, bounds, default and description.

In the sections with a `name` (method, optim, schedule) the name decides which other keys the section takes.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

MOST_PATCHES = 10**9


class Section(BaseModel):
    """A section of a recipe. Unknown keys are refused, so a misspelt key is an error. So are `true` as a number and `.inf`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Data(Section):
    label_budget: int | None = Field(
        None,
        ge=2,
        le=MOST_PATCHES,
        description="keep this many labels; the other patches join the unlabelled pool, and their labels are used for scoring only",
    )
    slide_budget: int | None = Field(
        None,
        ge=2,
        le=MOST_PATCHES,
        description="keep the labels of this many slides (stain clusters where slides are unknown); as data.label_budget otherwise, and one of the two at most",
    )
    allow_conflicts: bool = Field(False, description="train even if exact duplicates have different labels")

    @property
    def hides_labels(self) -> bool:
        """Whether a budget hides labels."""
        return self.label_budget is not None or self.slide_budget is not None


class CrossValidation(Section):
    scheme: Literal["grouped", "official", "random"] = Field(
        "grouped",
        description="grouped: folds of whole slides; official: train on train, score on valid; random: folds of patches, to demonstrate leakage",
    )
    folds: int = Field(5, ge=2, le=100, description="number of folds (official has one)")
    inner_share: float = Field(
        0.15,
        gt=0,
        lt=0.5,
        description="share of a fold's training patches, in whole slides, held out to choose the epoch, learning rate, temperature and thresholds",
    )
    refit: bool | Literal["auto"] = Field(
        "auto",
        description="also train one network on all labelled slides that folds learn from (no scores are reported for it); auto: where method.name is metric",
    )
    folds_file: str | None = Field(
        None,
        min_length=1,
        description="folds.parquet of another run, to use its folds and inner slides; cv and data.label_budget must agree with it",
    )
    inner_folds: Annotated[int, Field(ge=0, le=100)] | Literal["auto"] = Field(
        "auto",
        description="cross-fit in place of inner slides: a fold's own network learns from all its slides, and each of them is also scored"
        " by one of this many inner networks that did not see it; 0: hold out inner_share; auto: 5 where heads are trained on cached features, else 0",
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="seed of the label budget, and of folds and inner slides without folds_file; null: as seed. Runs with the same cv.seed and other seeds can be compared",
    )


# Upper bounds refuse a mistyped number before it fills a disk or overflows an integer.
MOST_EPOCHS = 100_000


class Model(Section):
    name: str = Field(
        "resnet18",
        min_length=1,
        description="timm backbone, foundation model (uni2, virchow2, h-optimus-0, phikon-v2, midnight), hf-hub:OWNER/NAME or local-dir:PATH",
    )
    pretrained: bool = Field(True, description="start from published weights")
    image_size: int | None = Field(
        None,
        ge=32,
        le=1024,
        description="resize patches to this many px on the device, by the backbone's own interpolation; null: the size of the patch, or the fixed size of the backbone",
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="dropout rate before the head")
    drop_path_rate: float = Field(0.0, ge=0, lt=1, description="rate of stochastic depth, where the backbone supports it")
    freeze_backbone: bool = Field(False, description="train the head only, on cached features")
    head: Literal["linear", "mlp"] = Field(
        "linear", description="classifier on the features: linear, or an MLP with one hidden layer (model.hidden)"
    )
    hidden: int = Field(256, ge=1, le=2**16, description="hidden units of the MLP head")
    head_first_epochs: int = Field(
        0, ge=0, le=MOST_EPOCHS, description="epochs in which only the head is trained, before backbone and head"
    )
    init: str | None = Field(
        None, min_length=1, description="RUN whose fold-K weights fold K starts from; it must have the same folds"
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="your own weights of the backbone, safetensors or a torch state dict, instead of published ones; model.weights_digest stands for the content",
    )
    weights_digest: str | None = Field(
        None,
        pattern="^[0-9a-f]{64}$",
        description="SHA-256 of model.weights, filled in when the recipe is read; a file that differs from it is refused",
    )


class Features(Section):
    cache: bool = Field(
        True,
        description="with a frozen backbone: keep its features in DATASET/features (or $PCAM_SSL_CACHE) and train on them; false: run it anew for each view. Same numbers up to float16",
    )
    layers: Literal["last", "stages", "auto"] = Field(
        "auto",
        description="features of a frozen backbone. last: its pooled last stage; stages: the pooled outputs of all stages side by side; auto: stages for CNNs, last for transformers",
    )
    random_views: int = Field(
        0,
        ge=0,
        le=64,
        description="with a frozen backbone: random views kept of each patch, for the policies that draw more than D4",
    )


class Neighbours(Section):
    use: bool | Literal["auto"] = Field(
        "auto", description="also classify by nearest neighbours; auto: where method.name is metric"
    )
    k: Annotated[int, Field(ge=1, le=MOST_PATCHES)] | Literal["inner"] = Field(
        20, description="number of neighbours that vote; inner: chosen on the inner slides"
    )
    temperature: Annotated[float, Field(gt=0, le=1000)] | Literal["inner"] = Field(
        0.07, description="each vote has weight exp(cosine / temperature); inner: chosen on the inner slides"
    )


class Graph(Section):
    use: bool = Field(
        False,
        description="also classify by label propagation: labels spread on a graph of nearest neighbours over training patches and pool",
    )
    k: Annotated[int, Field(ge=1, le=MOST_PATCHES)] | Literal["inner"] = Field(
        "inner", description="number of neighbours of each patch in the graph; inner: chosen on the inner slides"
    )
    alpha: Annotated[float, Field(gt=0, le=0.999)] | Literal["inner"] = Field(
        "inner",
        description="share of its score that a patch takes from its neighbours; near 1, labels spread far; inner: chosen on the inner slides",
    )
    power: Annotated[float, Field(gt=0, le=100)] | Literal["inner"] = Field(
        "inner", description="an edge has weight cosine ** power; inner: chosen on the inner slides"
    )
    pool: bool = Field(
        True,
        description="unlabelled patches of the fold's pool are in the graph too, never those that are scored; false: training patches only",
    )
    transductive: bool = Field(
        False,
        description="scored patches (out of fold and test) are in the graph too, without labels: their scores are valid for labelling these"
        " patches, not for new slides, and are marked",
    )


class Spatial(Section):
    use: bool = Field(
        False,
        description="also score smoothed in space: each logit mixed with the mean of the up to eight patches around it on its slide",
    )
    weight: Annotated[float, Field(ge=0, le=1)] | Literal["inner"] = Field(
        "inner", description="weight of what lies around against the patch itself; inner: chosen on the inner slides"
    )
    step_px: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="distance of neighbouring patches, px of the coordinates; null: that of `data tile`, else the smallest on any slide",
    )


class Views(Section):
    policy: Literal["none", "d4", "standard", "strong", "file"] = Field(
        "standard",
        description="training views. none: the patch; d4: D4; standard: D4 + stain jitter as large as between slides;"
        " strong: D4 + more stain jitter, shift, blur, erasing; file: D4 + views.file",
    )
    strength: float = Field(1.0, ge=0, le=3, description="scales all magnitudes except D4 and those of views.file")
    engine: Literal["auto", "albumentations", "tensor"] = Field(
        "auto",
        description="what computes training views. albumentations: OpenCV, one patch after the other, on the host; tensor: batched tensor operations on the"
        " device. Both draw the same views, and no value of a pixel differs by more than 1 of 255. auto: tensor on CUDA and where train.data is device, else albumentations",
    )
    file: str | None = Field(
        None,
        description="your own policy as written by albumentations.save, YAML or JSON; read once. Sets views.policy=file unless a policy is set too",
    )
    transform: dict[str, Any] | None = Field(None, description="content of views.file, so that the run no longer needs the file")


# The limit of float32. A rate that is only far too high leads to a loss that is not finite, and that error names the step.
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


class LBFGS(Section):
    name: Literal["lbfgs"] = "lbfgs"
    c: Annotated[float, Field(gt=0, le=1e6)] | Literal["inner"] = Field(
        "inner",
        description="inverse strength of the L2 penalty on standardised features (C of scikit-learn's LogisticRegression); inner: chosen on patches that the inner networks did not see",
    )
    max_steps: int = Field(200, ge=1, le=100_000, description="at most this many steps of L-BFGS")
    tolerance: float = Field(
        1e-7, gt=0, le=1, description="a head is fitted where a further step would lower its mean loss by less than this (nats)"
    )


class WarmUp(Section):
    warmup_epochs: float = Field(0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the learning rate over this many epochs")


class Constant(WarmUp):
    name: Literal["constant"] = "constant"


class OneCycle(Section):
    name: Literal["one_cycle"] = "one_cycle"
    rise_share: float = Field(0.25, gt=0, lt=1, description="share of all steps in which the learning rate rises")
    start_factor: float = Field(0.04, gt=0, le=1, description="first learning rate / optim.lr")
    final_factor: float = Field(1e-4, ge=0, le=1, description="last learning rate / optim.lr")


class Cosine(WarmUp):
    name: Literal["cosine"] = "cosine"
    final_factor: float = Field(0.0, ge=0, le=1, description="last learning rate / optim.lr")


class Cyclic(WarmUp):
    name: Literal["cyclic"] = "cyclic"
    cycle_epochs: float = Field(4.0, gt=0, le=MOST_EPOCHS, description="length of one cycle, up and down, in epochs")
    low_factor: float = Field(0.1, gt=0, le=1, description="lowest learning rate / optim.lr")


class Plateau(WarmUp):
    name: Literal["plateau"] = "plateau"
    factor: float = Field(0.5, gt=0, lt=1, description="factor on the learning rate when the inner loss no longer improves")
    patience: int = Field(5, ge=0, le=MOST_EPOCHS, description="epochs without improvement before the learning rate is reduced")
    min_factor: float = Field(1e-3, ge=0, le=1, description="lowest learning rate / optim.lr")


class Train(Section):
    epochs: int = Field(10, ge=1, le=MOST_EPOCHS)
    batch_size: int = Field(64, ge=2, le=2**16, description="patches per step, over all processes")
    samples_per_epoch: int | None = Field(None, ge=2, le=MOST_PATCHES, description="maximum number of patches per epoch")
    clip_norm: float | None = Field(None, gt=0, le=1e9, description="gradients are clipped to this norm")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="decay of a moving average of the weights, which is then evaluated and kept (with warm-up of the decay)",
    )
    choose: Literal["inner", "last", "fold"] = Field(
        "last",
        description="epoch kept. inner: best AUROC on the inner slides; last: the last; fold: best on the scored fold (leaks; scores are marked selected_on_fold)",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="auto: the fastest format of the device; recipe.yaml of the run states it"
    )
    channels_last: bool | Literal["auto"] = "auto"
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="torch.compile the network, for batches of fixed size; auto: on CUDA with triton, where a backbone is trained",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    data: Literal["auto", "host", "device"] = Field(
        "auto",
        description="where the pixels of a fold lie while it trains. host: in the dataset's file, sent with each batch; device: copied to the device once;"
        " auto: on CUDA device where they take at most half of its memory, else host. Changes no number but by views.engine=auto",
    )
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
    d4: bool = Field(True, description="score all eight dihedral views")
    random_views: int = Field(
        0, ge=0, le=64, description="number of further views drawn from views.policy, seeded by (seed, id, view)"
    )
    mean: Literal["logit", "prob"] = Field("logit", description="space in which views are averaged")
    batch_size: int = Field(128, ge=1, le=2**16)


class Score(Section):
    resamples: int = Field(2000, ge=100, le=1_000_000, description="resamples of the slide-clustered bootstrap")
    floor: bool = Field(
        True, description="also score the colour baseline, gradient boosting on colour histograms, in the same folds"
    )


class Supervised(Section):
    name: Literal["supervised"] = "supervised"
    loss: Literal["bce", "focal"] = Field("bce", description="binary cross-entropy, or focal loss (Lin et al. 2017)")
    pos_weight: Annotated[float, Field(gt=0, le=1e6)] | Literal["auto"] | None = Field(
        None, description="weight of tumor patches; auto: negatives / positives of the fold's training labels"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="targets become s/2 and 1 - s/2 for label smoothing s")
    focal_gamma: float = Field(2.0, ge=0, le=100, description="focusing parameter gamma of the focal loss")


EMBEDDING_LOSSES = {
    "arcface": "classes",
    "subcenter_arcface": "classes",
    "triplet": "pairs",
    "supcon": "pairs",
    "multi_similarity": "pairs",
    "proxy_anchor": "classes",
}
"""Metric losses, and what they compare a patch with: other patches (`pairs`) or learned class vectors (`classes`)."""


class Metric(Section):
    name: Literal["metric"] = "metric"
    loss: Literal[tuple(EMBEDDING_LOSSES)] = Field("arcface", description="metric loss on the unit-length embedding")
    weight: float = Field(0.5, gt=0, le=1e6, description="weight of the metric loss; the classification loss has weight 1")
    classify: bool = Field(True, description="false: train with the metric loss only; the run's predictions are then those of kNN")
    projection: int = Field(128, ge=2, le=2**16, description="dimensions of the embedding")
    slide_aware: bool = Field(
        False,
        description="positives from other slides, negatives from the anchor's own slide where it has any (triplet, supcon, multi_similarity)",
    )
    miner: Literal["none", "multi_similarity", "batch_hard", "semihard", "hard"] = Field(
        "none", description="choice of the pairs or triplets of a batch; with slide_aware, among those that slides allow"
    )
    margin_deg: float = Field(28.6, ge=0, lt=90, description="angular margin of the ArcFace losses, in degrees")
    scale: float = Field(16.0, gt=0, le=1e4, description="inverse temperature of the ArcFace losses")
    sub_centers: int = Field(3, ge=1, le=1000, description="subcenter_arcface: vectors per class")
    triplet_margin: float = Field(0.2, gt=0, le=2, description="margin of the triplet loss and its miners, in embedding distance")
    temperature: float = Field(0.1, gt=0, le=1000, description="supcon: temperature")
    ms_alpha: float = Field(2.0, gt=0, le=1e4, description="multi_similarity: weight of positives")
    ms_beta: float = Field(50.0, gt=0, le=1e4, description="multi_similarity: weight of negatives")
    ms_base: float = Field(0.5, ge=-1, le=1, description="multi_similarity: similarity threshold between positives and negatives")
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
                f"slide_aware chooses pairs of patches, and {self.loss} has none; set loss to {', '.join(others)} or {last}"
            )
        if self.miner != "none":
            raise ValueError(f"a miner chooses pairs of patches, and {self.loss} has none; set miner to none")
        return self


class FixMatch(Section):
    name: Literal["fixmatch"] = "fixmatch"
    weight: float = Field(1.0, gt=0, le=1e6, description="weight of the consistency loss; the classification loss has weight 1")
    threshold: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="unlabelled patches count where the prob of the weak view is at least this, or at most 1 - this",
    )
    ratio: int = Field(2, ge=1, le=1000, description="unlabelled patches a step for each labelled one")
    weak: Literal["none", "d4", "standard", "strong", "file"] = Field("d4", description="views that give the pseudo-label")
    strong: Literal["none", "d4", "standard", "strong", "file"] = Field(
        "strong", description="views that are trained to agree with it"
    )
    ramp_epochs: float = Field(0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the weight over the first epochs")


class MeanTeacher(Section):
    name: Literal["mean_teacher"] = "mean_teacher"
    # The squared difference of probs has a much smaller gradient than the classification loss; the paper's weights go up to 100.
    weight: float = Field(10.0, gt=0, le=1e6, description="weight of the consistency loss; the classification loss has weight 1")
    decay: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="decay of the teacher, the moving average of the student (with warm-up of the decay). The teacher is evaluated and kept, or with train.ema_decay that average",
    )
    ratio: int = Field(2, ge=1, le=1000, description="unlabelled patches a step for each labelled one")
    weak: Literal["none", "d4", "standard", "strong", "file"] = Field("d4", description="views that the teacher sees")
    strong: Literal["none", "d4", "standard", "strong", "file"] = Field("standard", description="views that the student sees")
    ramp_epochs: float = Field(
        5.0,
        ge=0,
        le=MOST_EPOCHS,
        description="linear rise of the weight over the first epochs; a quarter of the training in the paper",
    )


class MixMatch(Section):
    name: Literal["mixmatch"] = "mixmatch"
    # On inner patches (pcam-mini, 1,000 labels, frozen backbone) 1 gave an AUROC of 0.881, 10 0.866, 75, the paper's weight, 0.800.
    weight: float = Field(
        1.0, gt=0, le=1e6, description="weight of the loss on mixed unlabelled patches; the classification loss has weight 1"
    )
    temperature: float = Field(
        0.5, gt=0, le=1, description="the guessed prob's logit is divided by this: below 1 guesses are sharper; 1 leaves them"
    )
    mixup_alpha: float = Field(
        0.75,
        gt=0,
        le=1000,
        description="the share of a patch's partner is drawn from Beta(alpha, alpha), its smaller side; larger mixes more",
    )
    views: int = Field(
        2, ge=1, le=64, description="views of each unlabelled patch a step; the guess is their mean prob, and all are trained on"
    )
    ratio: int = Field(1, ge=1, le=1000, description="unlabelled patches a step for each labelled one")
    weak: Literal["none", "d4", "standard", "strong", "file"] = Field("d4", description="views of unlabelled patches")
    ramp_epochs: float = Field(5.0, ge=0, le=MOST_EPOCHS, description="linear rise of the weight over the first epochs")


Method = Annotated[Supervised | Metric | FixMatch | MeanTeacher | MixMatch, Field(discriminator="name")]
Optim = Annotated[Adam | AdamW | Sgd | LBFGS, Field(discriminator="name")]
Schedule = Annotated[Constant | OneCycle | Cosine | Cyclic | Plateau, Field(discriminator="name")]


class Pseudo(Section):
    precision: float | None = Field(
        0.98,
        gt=0.5,
        lt=1,
        description="per class, add patches beyond the prob threshold at which inner slides prove this precision; null: off",
    )
    precision_level: float = Field(0.95, gt=0.5, lt=1, description="confidence level of that proof (one-sided, slides as clusters)")
    confidence: float | None = Field(
        None, gt=0.5, lt=1, description="add patches whose calibrated prob is above this, or below 1 - this"
    )
    top_share: float | None = Field(None, gt=0, le=1, description="add at most this share of the pool, the most confident patches")
    k_best: int | None = Field(
        None, ge=1, le=MOST_PATCHES, description="add at most this many patches of each class, the most confident"
    )
    class_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="add the surest patches of each class: this share of them in round 1, twice that in round 2, and so on"
        " (Cascante-Bonilla et al. 2021)",
    )
    view_std: float | None = Field(
        None, gt=0, le=1e6, description="leave out patches whose logit has a standard deviation above this over views"
    )
    agreement: bool = Field(False, description="leave out patches on which classifier and kNN disagree")
    balance: Literal["none", "prior"] = Field(
        "prior", description="prior: keep the classes in the ratio given by the calibrated probs of the pool"
    )
    slide_cap: int | None = Field(
        None, ge=1, le=MOST_PATCHES, description="maximum number of patches of one slide, where slides are known"
    )
    duplicate_cap: int | None = Field(
        None, ge=1, le=MOST_PATCHES, description="maximum number of patches of one group of near duplicates"
    )
    round_cap: float | None = Field(None, gt=0, le=1, description="maximum share of the pool that one round may add")
    label: Literal["hard", "soft"] = Field("hard", description="pseudo-labels are 0 or 1, or the calibrated prob")
    opinions: Literal["head", "knn", "graph", "head+knn", "head+graph", "knn+graph", "head+knn+graph"] = Field(
        "head",
        description="whose prob labels the pool: the classifier, kNN (neighbours.use), label propagation (graph.use), or the calibrated mean of"
        " several, weighted by what inner patches show",
    )
    teachers: int = Field(
        1,
        ge=1,
        le=50,
        description="number of networks a fold that label the pool in round 1: round 0's, and others of other seeds on the same labels."
        " Each more costs one more training of round 0",
    )
    prior: Literal["mean", "em"] = Field(
        "mean",
        description="expected share of tumor in the pool. mean: of the calibrated probs; em: by EM, and every prob is shifted to that share"
        " (Saerens et al. 2002), for a pool with another share of tumor than the labels",
    )
    weight: Literal["constant", "confidence", "softmatch", "agreement"] = Field(
        "constant",
        description="weight of a pseudo-label in the loss. constant: all equal; confidence: 2 |prob - 0.5|;"
        " softmatch: a truncated Gaussian (Chen et al. 2023); agreement: 1 - the highest prob of an opinion + the lowest",
    )
    weight_scale: float = Field(
        1.0, gt=0, le=10, description="factor on every weight: how much the pool counts; a true label has weight 1"
    )
    ramp_epochs: float = Field(
        0.0, ge=0, le=MOST_EPOCHS, description="linear rise of the weights over the first epochs of a student"
    )
    mix: Annotated[float, Field(gt=0, lt=1)] | Literal["all"] = Field(
        "all",
        description="share of each batch that is pseudo-labelled; all: labels and pseudo-labels shuffled together,"
        " or where a method draws by class (metric) in their share of the patches, at most half",
    )
    start: Literal["weights", "teacher"] = Field(
        "weights",
        description="where students start: the weights that round 0 started from, or those of their teacher, the fold's network of the round before",
    )
    noise: Literal["same", "d4", "standard", "strong", "file"] = Field(
        "strong", description="training views of pseudo-labelled patches; same: those of views.policy; file: those of views.file"
    )
    pooled: bool = Field(
        False,
        description="every fold learns from the pseudo-labels of all folds: for a final submission; out-of-fold scores are withheld",
    )
    planted_share: float = Field(
        0.25, ge=0, lt=0.7, description="share of training slides whose labels are hidden for the precision check; 0: no check"
    )
    planted_folds: int = Field(1, ge=1, le=100, description="number of folds with a precision check; each needs one more training")
    planted_precision: float | None = Field(
        None, gt=0.5, lt=1, description="precision that the check must show in each class; null: pseudo.precision"
    )
    planted_stop: bool = Field(True, description="stop where the check shows a lower precision")
    stop_worse: bool = Field(True, description="stop after a round whose inner score is not better than the best earlier one")
    stop_share: float | None = Field(0.01, ge=0, lt=1, description="stop where a round would add less than this share of the pool")
    stop_ratio: float | None = Field(
        0.25, gt=0, lt=1, description="stop where the tumor share of the added patches differs by more than this from the prior"
    )
    stop_flips: float | None = Field(
        0.1, gt=0, lt=1, description="stop where more than this share of the added patches changed their label"
    )
    headroom: bool = Field(
        True,
        description="forecast before the first round what knowing the pool could bring; go no further where the scored slides cannot show that much",
    )
    control: bool = Field(
        True,
        description="train the control after the rounds: labels alone, steps and seed of the last round's student."
        " Without it the verdict cannot tell rounds from longer training, and round 0 stays in use",
    )


class Recipe(Section):
    """Everything that decides a run's numbers, apart from data and code."""

    seed: int = Field(0, ge=0, lt=2**31)
    data: Data = Data()
    cv: CrossValidation = CrossValidation()
    model: Model = Model()
    features: Features = Features()
    method: Method = Supervised()
    views: Views = Views()
    optim: Optim = AdamW()
    schedule: Schedule = OneCycle()
    train: Train = Train()
    predict: Predict = Predict()
    neighbours: Neighbours = Neighbours()
    graph: Graph = Graph()
    spatial: Spatial = Spatial()
    score: Score = Score()
    pseudo: Pseudo = Pseudo()
    _stated: dict[str, Any] = PrivateAttr(default_factory=dict)

    @property
    def stated(self) -> dict[str, Any]:
        """Values by flat key that a shipped recipe or an earlier run stated: where the recipe still has them, they are not the user's own."""
        return self._stated

    def with_stated(self, stated: dict[str, Any]) -> "Recipe":
        """The same recipe with other values of `stated`."""
        recipe = self.model_copy()
        recipe._stated = stated
        return recipe

    def __eq__(self, other: object) -> bool:
        """Whether all keys are equal, whoever stated them."""
        return isinstance(other, Recipe) and dict(self) == dict(other)

    @model_validator(mode="after")
    def _choices_agree(self):
        if self.model.freeze_backbone and self.model.head_first_epochs:
            raise ValueError("model.head_first_epochs has no meaning with model.freeze_backbone; drop one")
        if self.data.label_budget is not None and self.data.slide_budget is not None:
            raise ValueError(
                "data.label_budget and data.slide_budget both choose the labels that are kept; set one of them to null"
            )
        if self.model.head_first_epochs >= self.train.epochs and self.model.head_first_epochs:
            raise ValueError("model.head_first_epochs leaves the backbone no epoch; raise train.epochs")
        if self.model.weights is not None and self.model.init is not None:
            raise ValueError("model.weights and model.init both give the first weights; drop one")
        if self.model.weights is None and self.model.weights_digest is not None:
            raise ValueError("model.weights_digest is that of model.weights, which is not set; set model.weights")
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
            raise ValueError(f"pseudo.{key} needs a classifier, and method.classify=false trains none; drop one of the two")
        return self

    @property
    def starts_from_published(self) -> bool:
        """Whether networks start from published weights (`model.pretrained`): not where `model.init` or `model.weights` is set."""
        return self.model.pretrained and self.model.init is None and self.model.weights is None

    @property
    def trains_on_features(self) -> bool:
        """Whether units share a frozen backbone and train heads on its features. Weights of `model.init` differ by fold."""
        return self.model.freeze_backbone and self.model.init is None

    @model_validator(mode="after")
    def _frozen_backbone_has_fixed_views(self):
        if not self.trains_on_features:
            return self
        kept = self.features.random_views
        random = [
            key for key, policy in self.policies.items() if policy in ("standard", "strong", "file") and key != "pseudo.noise"
        ]
        if random and not kept:
            policy = self.policies[random[0]]
            raise ValueError(
                f"{random[0]} is {policy}, and of a frozen backbone only the eight D4 views are kept; set features.random_views=8, or {random[0]}=d4"
            )
        if self.predict.random_views > kept:
            raise ValueError(
                f"predict.random_views is {self.predict.random_views}, and features.random_views keeps {kept}; raise the latter"
            )
        if self.model.drop_path_rate:
            raise ValueError("model.drop_path_rate has no effect on a frozen backbone; leave it at 0 (drop_rate acts on the head)")
        return self

    @model_validator(mode="after")
    def _lbfgs_fits_a_linear_head(self):
        if self.optim.name != "lbfgs":
            return self
        for wrong, change in (
            (not self.trains_on_features, "model.freeze_backbone=true without model.init"),
            (self.method.name != "supervised" or self.method.loss != "bce", "method.name=supervised with loss bce"),
            (self.model.head != "linear", "model.head=linear"),
            (self.model.drop_rate > 0, "model.drop_rate=0"),
            (self.train.choose != "last", "train.choose=last (there are no epochs)"),
        ):
            if wrong:
                raise ValueError(f"optim.name=lbfgs fits a linear head on fixed features; set {change}, or another optim.name")
        return self

    @model_validator(mode="after")
    def _cross_fitting_leaves_no_inner_slides(self):
        if self.cv.inner_folds in ("auto", 0):
            return self
        if self.cv.inner_folds == 1:
            raise ValueError("cv.inner_folds is 1; 2 or more cross-fit, 0 holds out inner slides")
        if self.model.init is not None:
            raise ValueError("cv.inner_folds cross-fits, and weights of model.init have seen those slides; set cv.inner_folds=0")
        if self.train.choose != "last" or self.schedule.name == "plateau":
            key = "train.choose=last" if self.train.choose != "last" else "another schedule than plateau"
            raise ValueError(f"cv.inner_folds leaves no inner slides to watch during training; set {key}, or cv.inner_folds=0")
        if not self.trains_on_features:
            raise ValueError(
                "cv.inner_folds trains that many further networks a fold; set model.freeze_backbone=true, or cv.inner_folds=0"
            )
        return self

    @property
    def scored_by(self) -> Literal["head", "knn"]:
        """The source of a run's Predictions: the classifier, or kNN where no classifier is trained (`method.classify: false`)."""
        return "knn" if self.method.name == "metric" and not self.method.classify else "head"

    @property
    def uses_knn(self) -> bool:
        """Whether kNN votes are made; `auto`: where the method is metric learning."""
        return self.method.name == "metric" if self.neighbours.use == "auto" else self.neighbours.use

    @model_validator(mode="after")
    def _own_views_are_there_and_used(self):
        given = self.views.file is not None or self.views.transform is not None
        if self.draws_from_file and not given:
            raise ValueError(f"{self.draws_from_file[0]} is file and there is none; set views.file=PATH")
        if self.views.file is not None and not self.draws_from_file:
            raise ValueError("views.file is set and nothing draws from it; set views.policy=file, or pseudo.noise=file")
        return self

    @model_validator(mode="after")
    def _views_can_be_computed_on_the_device(self):
        on_device = self.train.data == "device"
        if not on_device and self.views.engine != "tensor":
            return self
        asked, other = (
            ("train.data=device", "train.data=host") if on_device else ("views.engine=tensor", "views.engine=albumentations")
        )
        if self.trains_on_features:
            raise ValueError(f"{asked}: heads of a frozen backbone train on cached features, not on pixels; set {other}")
        if self.draws_from_file:
            raise ValueError(f"{asked}: only albumentations computes views.file ({self.draws_from_file[0]}=file); set {other}")
        if self.views.engine == "albumentations":
            raise ValueError(
                "train.data=device: albumentations computes views on the host; set views.engine=tensor, or train.data=host"
            )
        return self

    @property
    def draws_from_file(self) -> list[str]:
        """The keys that use the views of `views.file`."""
        return [key for key, policy in self.policies.items() if policy == "file"]

    @property
    def policies(self) -> dict[str, str | None]:
        """The policies of all views, by key."""
        policies = {"views.policy": self.views.policy, "pseudo.noise": self.pseudo.noise}
        return policies | {f"method.{name}": getattr(self.method, name, None) for name in ("weak", "strong")}

    def dump(self) -> dict[str, Any]:
        """Every key, as a nested dict of plain values."""
        return self.model_dump(mode="json")


# Keys of how the work is done, not of what is computed. They are not part of a run's identity.
MACHINE_KEYS = (
    "train.device",
    "train.data",
    "train.workers",
    "train.checkpoint_s",
    "train.tensorboard",
    "train.mlflow",
    "predict.batch_size",
)
# Keys that say where a file lies. Another key holds the digest of its content, which is part of the identity.
PLACE_KEYS = ("model.weights",)
# Keys that decide whether rounds or the control begin, not what they contain. They may change between two calls of the command.
STOP_KEYS = ("planted_precision", "planted_stop", "stop_worse", "stop_share", "stop_ratio", "stop_flips", "headroom", "control")


def learns_from_pool(method: Section) -> bool:
    """Whether a method trains on unlabelled patches too. Its section then has the keys `ratio`, `weak` and `ramp_epochs`."""
    return {"ratio", "weak", "ramp_epochs"} <= type(method).model_fields.keys()
