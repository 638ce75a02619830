"""Benchmarks beside their peers: ``python -m benchmarks`` from a checkout. Never timed tests."""
