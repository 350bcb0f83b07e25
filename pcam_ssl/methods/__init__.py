"""Training objectives, one a file. A method is an nn.Module that holds its network: batch in, dict with `loss` out."""

from torch import nn

from pcam_ssl.methods.fixmatch import FixMatch
from pcam_ssl.methods.mean_teacher import MeanTeacher
from pcam_ssl.methods.metric import Metric
from pcam_ssl.methods.supervised import Supervised
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.extensions import METHODS as GROUP
from pcam_ssl.recipe.extensions import load_extension

METHODS: dict[str, type[nn.Module]] = {
    "supervised": Supervised,
    "metric": Metric,
    "fixmatch": FixMatch,
    "mean_teacher": MeanTeacher,
}
"""By name in a recipe; a method of another package is found by its entry point."""


def build_method(options: dict, network: Network, labels) -> nn.Module:
    """The method `options['name']` around a network. `labels` `[n]` 0/1 are the fold's training labels, for weights that count them."""
    options = dict(options)
    name = options.pop("name")
    method = METHODS[name] if name in METHODS else load_extension(GROUP, name)
    return method.build(network, labels, **options)
