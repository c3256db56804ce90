"""Builds datasets at scale: fits, atlases and shards on Ray, with the store as the only state."""
