"""Labelled films: who lies where, in which stratum, with which truth masks."""

from covseg.data.images import Excluded, FilmSet, LabelledFilm
from covseg.data.layout import open_set
from covseg.data.masks import BadMask, read_truth
from covseg.records import Truth

__all__ = ["BadMask", "Excluded", "FilmSet", "LabelledFilm", "Truth", "open_set", "read_truth"]
