"""Labelled films: who lies where, in which stratum, with which truth masks."""

from covseg.data.films import Excluded, FilmSet, LabelledFilm
from covseg.data.layout import open_set
from covseg.data.masks import BadMask, Truth, read_truth

__all__ = ["BadMask", "Excluded", "FilmSet", "LabelledFilm", "Truth", "open_set", "read_truth"]
