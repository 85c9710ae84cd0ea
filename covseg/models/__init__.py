"""Networks and model folders."""
