"""One or several numbers per image."""
