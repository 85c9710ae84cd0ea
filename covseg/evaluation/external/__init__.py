"""A model beside readers' scores: external validation on images that have no masks."""
