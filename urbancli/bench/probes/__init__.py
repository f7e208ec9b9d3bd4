"""Probes: one file, one probe. Its file name is its name."""
