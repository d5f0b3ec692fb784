"""Old names of what commands.py, toys.py and others hold."""

from commands import BIN, PLUGIN, ROOT, refusal, run_process  # noqa: F401
from commands import environment_with as environment  # noqa: F401
from commands import start_process as start  # noqa: F401
from folders import changed, tree  # noqa: F401
from manifests import ENGINE, data_settings  # noqa: F401
from manifests import content as manifest_content  # noqa: F401
from manifests import read as read_manifest  # noqa: F401
from manifests import write as write_manifest  # noqa: F401
from processes import exists, is_running, is_stopped, status, wait_until  # noqa: F401
from processes import resume as tell  # noqa: F401
from similarity import sentence_bleu as similarity  # noqa: F401
from toys import *  # noqa: F401,F403

command = run_process
