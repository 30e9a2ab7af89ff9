"""What `moss_train.engines.optimization` is made of: rates by module, choices of precision, averages of weights, Muon, bytes."""
