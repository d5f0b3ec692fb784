"""What is on disk: manifests, the n-best store, and data-bins. Nothing here knows a model."""
