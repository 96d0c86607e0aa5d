"""Learnable Regions (Lin et al., CVPR 2024, arXiv 2311.16432): boxes around salient places."""
