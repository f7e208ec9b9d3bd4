"""Task families: one file, one family."""
