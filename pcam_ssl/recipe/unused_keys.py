"""Keys that a user sets and nothing reads, because the switch or choice that would read them is another."""

from collections.abc import Callable, Iterator

from pcam_ssl.recipe.schema import Recipe

FOLDS_OF_FEWEST_CLUSTERS = 5
"""Up to this many folds, the number of stain clusters that stand in for unknown slides stays the same (`make_folds`)."""
BY_STEPS = "optim.name=adamw, adam or sgd"

READERS: tuple[tuple[str, str, str, Callable[[Recipe], bool]], ...] = (
    (
        *("cv", "folds", "cv.scheme=grouped or random"),
        lambda recipe: recipe.cv.scheme != "official" or recipe.cv.folds > FOLDS_OF_FEWEST_CLUSTERS,
    ),
    (
        *("cv", "folds", "cv.scheme=grouped or random, or slides are unknown"),
        lambda recipe: recipe.cv.scheme != "official" or recipe.cv.folds <= FOLDS_OF_FEWEST_CLUSTERS,
    ),
    ("neighbours", "k temperature", "neighbours.use=true", lambda recipe: recipe.uses_knn),
    ("graph", "k alpha power pool transductive", "graph.use=true", lambda recipe: recipe.graph.use),
    ("spatial", "weight step_px", "spatial.use=true", lambda recipe: recipe.spatial.use),
    ("model", "hidden", "model.head=mlp", lambda recipe: recipe.model.head == "mlp"),
    (
        *("features", "cache layers random_views", "model.freeze_backbone=true and no model.init"),
        lambda recipe: recipe.trains_on_features,
    ),
    (
        *("train", "epochs batch_size samples_per_epoch clip_norm ema_decay tensorboard mlflow checkpoint_s", BY_STEPS),
        lambda recipe: recipe.optim.name != "lbfgs",
    ),
    (
        *("train", "compile", "model.freeze_backbone=false or model.init"),
        lambda recipe: recipe.train.compile is not True or not recipe.trains_on_features,
    ),
)
"""Section, keys, what makes them count, and whether it holds."""

SUPERVISED = (("focal_gamma", "method.loss=focal", lambda method: method.loss == "focal"),)
METRIC = (
    ("margin_deg scale", "method.loss=arcface or subcenter_arcface", lambda method: "arcface" in method.loss),
    ("sub_centers", "method.loss=subcenter_arcface", lambda method: method.loss == "subcenter_arcface"),
    (
        *("triplet_margin", "method.loss=triplet or a miner of triplets"),
        lambda method: method.loss == "triplet" or method.miner in ("batch_hard", "semihard", "hard"),
    ),
    ("temperature", "method.loss=supcon", lambda method: method.loss == "supcon"),
    ("ms_alpha ms_beta ms_base", "method.loss=multi_similarity", lambda method: method.loss == "multi_similarity"),
    ("proxy_margin proxy_alpha", "method.loss=proxy_anchor", lambda method: method.loss == "proxy_anchor"),
    ("miner_epsilon", "method.miner=multi_similarity", lambda method: method.miner == "multi_similarity"),
)
METHODS = {"supervised": SUPERVISED, "metric": METRIC}
"""The same for keys of a method, by its name."""

SCALED = ("standard", "strong")
"""The policies of views whose magnitudes `views.strength` scales."""


def unused_keys(recipe: Recipe, rounds: bool = False) -> list[str]:
    """A line for each group of keys that the user set and that change no number, with the setting that would use them.

    A key is the user's where it differs from what is `stated`, else from its default. In pseudo-label `rounds` the views of
    pseudo-labelled patches are drawn, too. Such keys are no error: a sweep over the switch sets them for all of its runs, and recipes
    of runs made before must stay readable.
    """
    return list(_lines(recipe, rounds))


def _lines(recipe: Recipe, rounds: bool) -> Iterator[str]:
    method, schedule = recipe.method, recipe.schedule
    rows = [(section, keys, needed, used(recipe)) for section, keys, needed, used in READERS]
    rows += [("method", keys, needed, used(method)) for keys, needed, used in METHODS.get(method.name, ())]
    # The name counts: plateau needs inner slides.
    of_schedule = " ".join(key for key in type(schedule).model_fields if key != "name")
    rows += [("schedule", of_schedule, BY_STEPS, recipe.optim.name != "lbfgs")]
    drawn = {key: policy for key, policy in recipe.policies.items() if policy is not None and (rounds or key != "pseudo.noise")}
    rows += [("views", "strength", f"{' or '.join(drawn)}=standard or strong", any(each in SCALED for each in drawn.values()))]
    for name, keys, needed, used in rows:
        set_keys = [] if used else [key for key in keys.split() if _is_set(recipe, name, key)]
        if set_keys:
            named = ", ".join(f"{name}.{key}" for key in set_keys)
            yield f"{named}: without effect unless {needed}; set that, or leave {'it' if len(set_keys) == 1 else 'them'} out"


def _is_set(recipe: Recipe, name: str, key: str) -> bool:
    """Whether the user set this key of a section."""
    section = getattr(recipe, name)
    return getattr(section, key) != recipe.stated.get(f"{name}.{key}", type(section).model_fields[key].default)
