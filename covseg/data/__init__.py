"""Labelled images: what lies where, in which stratum, with which truth masks."""

from covseg.data.images import Excluded, LabelledImage, LabelledSet
from covseg.data.layout import open_set
from covseg.data.masks import read_truth
from covseg.errors import BadMask

__all__ = ["BadMask", "Excluded", "LabelledImage", "LabelledSet", "open_set", "read_truth"]
