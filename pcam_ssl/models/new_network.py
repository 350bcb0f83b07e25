"""The network of a recipe before any training."""

from collections.abc import Callable
from pathlib import Path

from pcam_ssl.models.backbone import package_for
from pcam_ssl.models.network import Network, build_network
from pcam_ssl.models.weights_file import load_weights_file
from pcam_ssl.recipe.schema import Recipe


def new_network(recipe: Recipe, size_px: int, tell: Callable[[str], None] = lambda line: None) -> Network:
    """The recipe's network before any training; `tell` gets a line about weights that do not come from the hub.

    Raises UserError where it cannot be built, or its weights cannot be loaded.
    """
    model, frozen = recipe.model, recipe.trains_on_features
    network = build_network(
        model.name,
        recipe.starts_from_published,
        size_px,
        model.image_size,
        model.drop_rate,
        model.drop_path_rate,
        getattr(recipe.method, "projection", None),
        model.hidden if model.head == "mlp" else None,
        recipe.features.layers if frozen else "last",
        frozen,
    )
    if model.weights is not None:
        loaded = load_weights_file(network, Path(model.weights), model.weights_digest)
        tell(loaded.line(model.name))
    elif recipe.starts_from_published and (package := package_for(model.name)) is not None:
        tell(package.line)
    return network
