"""From results to what a person looks at."""
