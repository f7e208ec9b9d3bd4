"""Where layers come from: one file, one source. Its file name is its name."""
