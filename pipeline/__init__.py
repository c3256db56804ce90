"""Carries objects through fitting, atlases and shards, on Ray, with the store as its only state."""
