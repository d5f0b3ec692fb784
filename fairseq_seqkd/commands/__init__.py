"""The subcommands of `seqkd`, one file each: `add(commands)` declares its options, `run(arguments)` does the work.

Nothing heavy is imported before `run`: fairseq takes four seconds, and `seqkd --help` must not wait for it.
"""
