"""Images that are made, not taken: phantoms with known truth, bad inputs, negatives, shifted images."""
