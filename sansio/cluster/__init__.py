"""Limits that several processes share: what they agree on, and by which questions to a store."""
