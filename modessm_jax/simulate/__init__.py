"""Simulated intracortical speech recordings in the layout of the T15 benchmark.

For tests, demonstrations and methods that need a known truth; they do not stand in for results on
recordings of people.
"""
