"""From runs and models to a finished model folder: release, combine, the input filter's fit, the model card."""
