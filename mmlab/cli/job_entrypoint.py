"""What the head of a cluster runs for `mmlab submit`: a command, with the environment it needs.

The environment has the credentials of the tracking server. It comes as a file, because Ray shows
the variables of a job to everyone who may list jobs, and passes them on to every worker.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from mmlab.cli import main
from mmlab.cli.job_command import ENVIRONMENT_FILE

#: Variable in which Ray tells the driver of a job what its workers get.
_JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def read_environment(folder: Path) -> None:
    """Set the variables of a job's file, remove it, and keep the job's folder from workers.

    Paths in the variables are relative to the folder.
    """
    file = folder / ENVIRONMENT_FILE
    for name, value in json.loads(file.read_text())["variables"].items():
        is_file = name.endswith("_CERT_PATH") and (folder / value).is_file()
        os.environ[name] = str(folder / value) if is_file else value
    file.unlink()
    if _JOB_CONFIG in os.environ:
        config = json.loads(os.environ[_JOB_CONFIG])
        config.pop("runtime_env", None)
        os.environ[_JOB_CONFIG] = json.dumps(config)


if __name__ == "__main__":
    read_environment(Path.cwd())
    # Commands that mmlab prints begin with its name.
    sys.argv[0] = "mmlab"
    main()
