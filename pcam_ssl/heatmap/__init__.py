"""Heat maps: the prob of tumor over whole slides, by networks that never saw them."""
