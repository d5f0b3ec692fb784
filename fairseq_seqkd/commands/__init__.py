"""The subcommands of `seqkd`, one file each.

`add_parser` declares the options, and `run` does the work. Nothing heavy is imported before `run`:
`seqkd --help` does not wait four seconds for fairseq.
"""
