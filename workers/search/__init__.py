"""A search for better recipes: the driver owns the study, a trial is an ordinary training run on Ray."""
