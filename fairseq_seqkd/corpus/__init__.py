"""Files on disk: manifests, stores, views and data-bins. No module here knows a model."""
