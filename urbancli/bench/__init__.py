"""The benchmark: tasks, splits, probes, stress and statistics."""
