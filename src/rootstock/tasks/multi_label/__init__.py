"""Several classes per image, or none."""
