"""The report: one offline HTML file, a pure function of table and pictures; no clock in it."""

from covseg.report.page import NO_HEAD, Head, render
from covseg.report.pictures import Gallery, Picture, picture

__all__ = ["NO_HEAD", "Gallery", "Head", "Picture", "picture", "render"]
