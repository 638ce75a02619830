"""Worlds by name: what is deployed, who calls, what goes wrong and when; how a run goes, and what is told of it."""
