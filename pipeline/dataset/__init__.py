"""The files of a run and of a finished dataset: keys, schemas, fragments, shards, metadata."""
