"""Transforms from raw features to wire features and model features.

All transforms are functions. Random ones take their generator as an argument.
"""
