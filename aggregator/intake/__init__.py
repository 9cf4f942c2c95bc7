"""Chunks in, whole updates out; what was seen before is known again."""
