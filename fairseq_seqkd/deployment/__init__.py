"""Students outside of fairseq: folders that hold all that it takes to translate text."""
