"""Pictures for the reports: one style, PNG files, the same bytes for the same data."""
