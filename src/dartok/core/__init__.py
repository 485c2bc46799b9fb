"""The method: scores to regions, regions to patches, maps to tokens and back. Torch only."""
