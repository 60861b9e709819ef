"""Environments behind one adapter contract (base.py)."""
