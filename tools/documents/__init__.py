"""Reference pages of the documentation, made from the code: ``python -m tools.documents`` writes them."""
