"""Whole studies: data in, results out."""
