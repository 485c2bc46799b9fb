"""Training: configuration and a small supervised loop."""
