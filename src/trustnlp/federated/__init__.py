"""Federated learning: a model learns from texts that stay on their devices."""

__all__: list[str] = []
