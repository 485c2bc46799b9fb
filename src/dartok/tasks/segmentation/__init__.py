"""Segmentation: decoders, losses, measures, and what regions allow at best."""
