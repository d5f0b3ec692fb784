"""Teacher decoding: the loop over a split, what it records, and the data sets built from it."""
