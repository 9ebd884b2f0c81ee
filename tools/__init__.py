"""Tools of the project itself: its documents and its language."""
