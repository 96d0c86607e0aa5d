"""A reproducible benchmark of the masks that text-driven image editing works under."""
