"""Tags of a registered version."""

BUNDLE_TAG, CARD_TAG, GATE_TAG, REASON_TAG = "bundle", "card", "gate_settings", "gate"
"""Tags of a version: digests of the bundle and its card, the gate, and the gate's reason."""
