"""The checks of ``limelight check``."""
