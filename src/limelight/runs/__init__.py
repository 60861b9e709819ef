"""Run folders and agents: written, read back, checkpointed, loaded and evaluated."""
