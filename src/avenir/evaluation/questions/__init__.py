"""One file, one question: what it measures, and how its answer is shown."""
