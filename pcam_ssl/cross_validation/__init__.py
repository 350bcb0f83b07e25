"""Cross-validation: train one network per fold, then aggregate their predictions."""
