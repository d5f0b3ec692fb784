"""`python -m fairseq_seqkd` is the command `seqkd`."""

import sys

from fairseq_seqkd.cli import main

sys.exit(main())
