"""Where labels come from: one file, one kind of label source."""
