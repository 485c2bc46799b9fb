"""Vision Mamba from plain wheels: the mixer, its blocks, and the hosts made of them."""
