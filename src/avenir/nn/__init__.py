"""Plain blocks: no config, no files, no role."""
