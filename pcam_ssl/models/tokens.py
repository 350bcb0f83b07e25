"""How the tokens of a vision transformer become one vector."""

import torch

TOKEN_RULES = ("cls", "mean", "cls+mean")
"""The class token; the mean of the patch tokens; both, side by side."""


def token_width(rule: str | None) -> int:
    """How many times as wide as a token the vector of a rule is; 1 without a rule."""
    return 2 if rule == "cls+mean" else 1


def pool_tokens(tokens: torch.Tensor, rule: str, n_prefix: int) -> torch.Tensor:
    """One vector `[B, D]` of tokens `[B, T, D]`, or `[B, 2 D]` by the rule cls+mean.

    The first `n_prefix` tokens are no patches: the class token, then register tokens, which no rule uses (Darcet et al. 2024,
    arXiv:2309.16588).
    """
    if rule == "cls":
        return tokens[:, 0]
    mean = tokens[:, n_prefix:].mean(1)
    return mean if rule == "mean" else torch.cat([tokens[:, 0], mean], dim=1)
