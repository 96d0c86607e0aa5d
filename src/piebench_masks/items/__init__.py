"""A picture as items, each with its own mask and words (D-Edit, Feng et al., arXiv 2403.04880)."""
