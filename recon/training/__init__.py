"""Training of priors: recipes, training slices, export. Nothing of the job path imports it."""
