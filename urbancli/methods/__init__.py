"""Representation methods and controls: one file, one method. Its file name is its name."""
