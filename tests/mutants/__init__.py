"""Planted bugs: ways to break viewreg that a person could really choose, as data, and the test that finds each."""
