"""The frozen backbone that the units of a run share, and its cached features."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.pixels import Inputs
from pcam_ssl.data.views import id_key
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.models.artefact import load_network
from pcam_ssl.models.features import cached_features
from pcam_ssl.models.network import Network
from pcam_ssl.models.new_network import new_network
from pcam_ssl.recipe.schema import Recipe, learns_from_pool


@dataclass(frozen=True)
class Frozen:
    """A network with the backbone that all units share, on the device and in eval mode. Without `features` it is run anew each time.

    `ids` uint64 `[N]` are the keys of the dataset's rows, from which random views are drawn.
    """

    network: Network
    features: Features | None
    ids: np.ndarray

    def heads(self, drop_rate: float) -> Network:
        """A new network of new heads, for what the units are fed with."""
        network = self.network.heads(drop_rate)
        if self.features is None:
            network.backbone = self.network.backbone
        network.freeze_backbone(True)
        return network

    def load(self, folder: Path, device: torch.device) -> tuple[Network, dict[str, Any]]:
        """The heads in a unit's folder as a network for what the units are fed with, and its model.json. Raises UserError as `load_network` does."""
        network, facts = load_network(folder, device, heads_of=self.network)
        if self.features is None:
            network.backbone = self.network.backbone
        return network, facts

    def views(self, recipe: Recipe, policy: str) -> FixedViews:
        """The fixed views of a policy."""
        return fixed_views(recipe, policy, self.ids)


def fixed_views(recipe: Recipe, policy: str, ids: np.ndarray) -> FixedViews:
    """The fixed views of a policy under the strength and transform of the recipe."""
    return FixedViews(policy, recipe.views.strength, recipe.views.transform, recipe.features.random_views, ids)


def open_frozen(
    recipe: Recipe, dataset: Dataset, world: World, precision: Precision, workers: int, *, rounds: bool = False
) -> Frozen | None:
    """The frozen backbone of a recipe, with its features computed where the cache lacks them; None where the backbone is trained.

    With `rounds` the views of pseudo-labelled patches are among them. Raises UserError where weights or cache cannot be had.
    """
    if not recipe.trains_on_features:
        return None
    # Backbones from random weights must be the same in every process and fold.
    torch.manual_seed(recipe.seed)
    network = new_network(recipe, dataset.size_px)
    network.freeze_backbone(True)
    layout = torch.channels_last if precision.channels_last else torch.contiguous_format
    network = network.to(world.device, memory_format=layout).eval()
    ids = np.array([id_key(each) for each in dataset.patches.sort_values("row").id], np.uint64)
    frozen = Frozen(network, None, ids)
    if not recipe.features.cache:
        return frozen
    wanted = [frozen.views(recipe, policy) for policy in used_policies(recipe, rounds)]
    features = cached_features(dataset, network, wanted, precision=precision, world=world, workers=workers)
    return Frozen(network, features, ids)


def used_policies(recipe: Recipe, rounds: bool = False) -> list[str]:
    """The policies whose fixed views a run needs: for training, for testing, and with `rounds` for pseudo-labelled patches."""
    policies = [recipe.views.policy, "d4" if recipe.predict.d4 else "none"]
    if learns_from_pool(recipe.method):
        policies += [policy for key, policy in recipe.policies.items() if key in ("method.weak", "method.strong") and policy]
    if rounds and recipe.pseudo.noise != "same":
        policies.append(recipe.pseudo.noise)
    return list(dict.fromkeys(["none", *policies]))


def features_of_rows(
    frozen: Frozen, inputs: Inputs, rows: np.ndarray, views: FixedViews, precision: Precision, world: World, batch_size: int
) -> torch.Tensor:
    """Features float32 `[n, D]` of the patches `rows`, each the mean over the fixed `views`."""
    if isinstance(inputs, Features):
        return inputs.mean_of(rows, views.names)
    parts = []
    with torch.inference_mode(), precision.autocast(world.device):
        for begin in range(0, len(rows), batch_size):
            block = rows[begin : begin + batch_size]
            total = torch.zeros(len(block), frozen.network.n_features)
            for number in range(len(views.names)):
                patches = np.stack([views.render(inputs.array[row], row, number) for row in block])
                total += frozen.network.features(torch.from_numpy(patches).to(world.device)).float().cpu()
            parts.append(total / len(views.names))
    return torch.cat(parts)
