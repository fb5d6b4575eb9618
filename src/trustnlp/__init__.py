"""Train language models on people's text privately, federated and fairly, and prove it."""

__version__ = "0.1.0"
