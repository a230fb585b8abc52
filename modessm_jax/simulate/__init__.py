"""Simulated intracortical speech recordings in the layout of the T15 benchmark.

For tests, demonstrations and methods that need a known truth; nothing here stands in for results on
people's recordings.
"""
