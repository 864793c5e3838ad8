"""One class per position of an image."""
