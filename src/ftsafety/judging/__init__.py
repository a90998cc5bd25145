"""Judges: each turns (prompt, answer) into a verdict; a grade that a judge did not give is not a score."""
