"""Kinds of splits: one file, one kind."""
