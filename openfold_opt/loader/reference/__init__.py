"""The reference path from raw features to model features, written for clarity.

Training and evaluation do not use it. It defines the content of a sample: tests check that encoding
(loader.sample) followed by decoding (loader.decode) gives the same bits.
"""
