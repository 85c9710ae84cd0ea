"""Predictions + truth -> metrics by stratum and convention -> intervals -> tables and pages.

Limits that stand beside every number: COVID-QU-Ex has no patient ids, its archives were mixed, and
class correlates with source; Non-COVID images are labelled empty, so "Dice on Non-COVID" is a specificity.
"""
