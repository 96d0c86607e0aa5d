"""The benchmark's items: from a data set's folder to samples, masks and images as arrays."""
