"""Parsers of the raw data, one per file format.

Errors name the file and, if known, the line.
"""
