"""Frozen encoders, from layers to tokens: one file, one encoder. Its file name is its name."""
