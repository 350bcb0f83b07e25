"""The tables of a selection: what it is given, what it leaves behind. No torch."""

POOL_COLUMNS = {
    "id": "str",
    "wsi": "str",
    "fold": "Int8",
    "logit": "float64",
    "prob": "float64",
    "view_std": "float64",
    "knn_prob": "float64",
    "view_hash": "str",
}
"""One row a pool patch, for one fold; `prob` is calibrated, `knn_prob` NaN where there is no kNN. No truth in it, ever."""

TRAIL_COLUMNS = {
    "id": "str",
    "fold": "Int8",
    "logit": "float64",
    "prob": "float64",
    "view_std": "float64",
    "knn_prob": "float64",
    "decision": "str",
    "reason": "str",
    "label": "float64",
    "weight": "float64",
    "change": "str",
    "network_digest": "str",
}
"""`decision` is added or left out; `label` NaN and `weight` 0 where left out; `change` is a member of `CHANGES` or ''."""

CLASSES = ("normal", "tumor")
CHANGES = ("new", "kept", "flipped", "taken back")
