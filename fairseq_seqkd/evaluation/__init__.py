"""How good a system is: measuring a checkpoint on a split, and the paper's Table 1 made of such measurements."""
