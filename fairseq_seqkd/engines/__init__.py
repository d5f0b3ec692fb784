"""How a search is run. An engine turns a batch into n-best lists; it knows nothing of files."""
