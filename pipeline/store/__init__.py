"""Durable writes: publish, and probes of what a store can do."""
