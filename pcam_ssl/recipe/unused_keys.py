"""Keys that a recipe sets and nothing reads, because the switch or choice that would read them is another."""

from collections.abc import Callable, Iterator

from pcam_ssl.recipe.schema import Recipe

READERS: tuple[tuple[str, str, str, Callable[[Recipe], bool]], ...] = (
    ("neighbours", "k temperature", "neighbours.use=true", lambda recipe: recipe.uses_knn),
    ("graph", "k alpha power pool transductive", "graph.use=true", lambda recipe: recipe.graph.use),
    ("spatial", "weight step_px", "spatial.use=true", lambda recipe: recipe.spatial.use),
    ("model", "hidden", "model.head=mlp", lambda recipe: recipe.model.head == "mlp"),
    (
        *("features", "cache layers random_views", "model.freeze_backbone=true and no model.init"),
        lambda recipe: recipe.trains_on_features,
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


def unused_keys(recipe: Recipe) -> list[str]:
    """A line for each group of keys that differ from their defaults and change no number, with the setting that would use them.

    They are no error: a sweep over the switch sets them for all of its runs, and recipes of runs made before must stay readable.
    """
    return list(_lines(recipe))


def _lines(recipe: Recipe) -> Iterator[str]:
    method = recipe.method
    rows = [(section, keys, needed, used(recipe)) for section, keys, needed, used in READERS]
    rows += [("method", keys, needed, used(method)) for keys, needed, used in METHODS.get(method.name, ())]
    for name, keys, needed, used in rows:
        section = getattr(recipe, name)
        set_keys = [key for key in keys.split() if getattr(section, key) != type(section).model_fields[key].default]
        if set_keys and not used:
            named = ", ".join(f"{name}.{key}" for key in set_keys)
            yield f"{named}: without effect unless {needed}; set that, or leave {'it' if len(set_keys) == 1 else 'them'} out"
