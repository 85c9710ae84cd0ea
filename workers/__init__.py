"""How many at once: Ray and Optuna around plain functions of covseg."""
