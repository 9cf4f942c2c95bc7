"""The files that `fieldfold task new` writes, one a kind: each builds as it is."""
