"""Training objectives, one a file. A method is an nn.Module that holds its network: batch in, dict with `loss` out."""

from torch import nn

from pcam_ssl.methods.fixmatch import FixMatch
from pcam_ssl.methods.mean_teacher import MeanTeacher
from pcam_ssl.methods.metric import Metric
from pcam_ssl.methods.supervised import Supervised
from pcam_ssl.models.network import Network

METHODS: dict[str, type[nn.Module]] = {
    "supervised": Supervised,
    "metric": Metric,
    "fixmatch": FixMatch,
    "mean_teacher": MeanTeacher,
}


def build_method(options: dict, network: Network, labels) -> nn.Module:
    """The method `options['name']` around a network. `labels` `[n]` 0/1 are the fold's training labels, for weights that count them."""
    options = dict(options)
    return METHODS[options.pop("name")].build(network, labels, **options)
