"""fieldfold beside Flower, both for real on one machine: the same model, data, local work and target."""
