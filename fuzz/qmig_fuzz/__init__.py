"""Generators, mutations and fuzz targets for the formats of ``qmig``."""
