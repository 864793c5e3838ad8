"""Tags of a registered version."""

BUNDLE_TAG, CARD_TAG, GATE_TAG, REASON_TAG = "bundle", "card", "gate_settings", "gate"
"""Tags of a version: the digest of the bundle and of its card, the gate, and what it said."""
