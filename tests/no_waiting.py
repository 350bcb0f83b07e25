"""A guard for what runs at every step: on a GPU the host must not wait for it."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoWaiting(TorchDispatchMode):
    """Fails where an operation reads values of a tensor to go on; on a GPU the host would wait for it there."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        assert name not in ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero"), name
        if name.startswith(("index", "_index")):
            places = args[1] if isinstance(args[1], (list, tuple)) else args[1:2]
            assert all(place is None or not torch.is_tensor(place) or place.dtype != torch.bool for place in places), name
        return function(*args, **(kwargs or {}))
