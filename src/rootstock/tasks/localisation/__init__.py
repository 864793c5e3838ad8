"""One class and one box per image."""
