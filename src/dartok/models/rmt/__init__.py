"""RMT: a hierarchical vision transformer whose attention decays with distance."""
