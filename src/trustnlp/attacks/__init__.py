"""Attacks on trained models: what a model reveals of the texts it was trained on, with error bars."""
