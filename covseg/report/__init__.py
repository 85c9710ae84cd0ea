"""The report: one offline HTML file, a pure function of table and pictures; no clock in it."""

from covseg.report.page import render
from covseg.report.pictures import Gallery, Picture, picture

__all__ = ["Gallery", "Picture", "picture", "render"]
