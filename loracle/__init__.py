"""Loracle tells which dataset is worth fine-tuning on."""

__version__ = "0.1.0"
