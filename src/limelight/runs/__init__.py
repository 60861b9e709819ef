"""Run folders: written, read, checkpointed, loaded and evaluated."""
