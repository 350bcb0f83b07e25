import pytest
import torch

from pcam_ssl.models.foundation import FOUNDATION_MODELS
from pcam_ssl.models.network import TOKEN_RULES, build_network, pool_tokens, rebuild_network, token_width

# A class token, two register tokens that would spoil any mean, and four patch tokens.
TOKENS = torch.tensor([[[1.0, 2.0], [900.0, 900.0], [-900.0, 700.0], [0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]]])


@pytest.mark.parametrize(
    ("rule", "vector"),
    [("cls", [1.0, 2.0]), ("mean", [3.0, 4.0]), ("cls+mean", [1.0, 2.0, 3.0, 4.0])],
    ids=lambda value: str(value),
)
def test_a_rule_on_tokens_laid_out_by_hand(rule, vector):
    assert pool_tokens(TOKENS, rule, 3).tolist() == [vector]
    assert pool_tokens(TOKENS, rule, 3).shape[1] == 2 * token_width(rule)


def test_without_a_rule_the_backbone_pools():
    assert token_width(None) == 1
    assert build_network("test_vit", False, 32).config.tokens is None


@pytest.mark.parametrize("name", FOUNDATION_MODELS)
def test_the_rule_of_each_model_leaves_out_its_register_tokens(name):
    model = FOUNDATION_MODELS[name]
    n_prefix = {"uni2": 9, "virchow2": 5, "h-optimus-0": 5, "phikon-v2": 1, "midnight": 1}[name]
    tokens = torch.zeros(1, n_prefix + 4, 1)
    tokens[0, 0], tokens[0, 1:n_prefix], tokens[0, n_prefix:, 0] = 7, 100, torch.tensor([1.0, 2, 3, 6])
    assert pool_tokens(tokens, model.tokens, n_prefix).tolist() == {"cls": [[7]], "cls+mean": [[7, 3]]}[model.tokens]


def test_an_older_artefact_without_the_key_pools_as_its_backbone_does():
    config = build_network("test_vit", False, 32).config.to_dict()
    del config["tokens"]
    assert rebuild_network(config).config.tokens is None


def test_rules_are_named():
    assert {model.tokens for model in FOUNDATION_MODELS.values()} <= set(TOKEN_RULES)
