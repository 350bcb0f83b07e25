"""Which patches of the pool get a pseudo-label, why, and how right that was. No torch."""
