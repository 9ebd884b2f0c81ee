"""Tools that make a release: wheels, the licence list of what is shipped, and the table of model cards."""
