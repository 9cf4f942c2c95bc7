"""Nodes: the whole fleet, one node a row."""
