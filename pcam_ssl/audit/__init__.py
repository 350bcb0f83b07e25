"""What is wrong with a dataset or its folds."""
