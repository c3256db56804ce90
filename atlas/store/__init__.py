"""Stores: local folders and S3 prefixes."""
