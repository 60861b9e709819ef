"""Environments behind one adapter contract (base.py); make.py builds them."""
