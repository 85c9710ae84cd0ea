"""Tests of covseg; they mirror the tree."""
