"""Networks: images to mask logits; they know no folder, no file and no threshold."""
