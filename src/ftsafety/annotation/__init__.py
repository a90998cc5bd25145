"""People read a sample of a study's answers and score them as its judges do."""
