"""Models in a registry: versions that never change, aliases that move, and models opened by any name."""

from covseg.registry.registry import open_model

__all__ = ["open_model"]
