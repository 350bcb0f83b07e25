"""Training objectives, one per file. A method is an nn.Module that contains its network, takes a batch, and returns a dict with `loss`."""

from torch import nn

from pcam_ssl.methods.fixmatch import FixMatch
from pcam_ssl.methods.mean_teacher import MeanTeacher
from pcam_ssl.methods.metric import Metric
from pcam_ssl.methods.mixmatch import MixMatch
from pcam_ssl.methods.supervised import Supervised
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.extensions import METHODS as GROUP
from pcam_ssl.recipe.extensions import load_extension

METHODS: dict[str, type[nn.Module]] = {
    "supervised": Supervised,
    "metric": Metric,
    "fixmatch": FixMatch,
    "mean_teacher": MeanTeacher,
    "mixmatch": MixMatch,
}
"""Methods by their name in a recipe. Methods of other packages are found by entry point."""


def build_method(options: dict, network: Network, labels) -> nn.Module:
    """The method `options['name']` with its network. `labels` `[n]`, 0 or 1, are the fold's training labels; class weights are computed from them.

    Raises UserError where the method belongs to another package that is not installed or cannot be loaded.
    """
    options = dict(options)
    name = options.pop("name")
    method = METHODS[name] if name in METHODS else load_extension(GROUP, name)
    return method.build(network, labels, **options)
