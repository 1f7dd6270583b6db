"""Answer what kagflow asks of a host that it reaches by ssh.

The files of this folder are sent as they are and read from stdin, so they use the standard library
alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from kagflow_host_common import Refused
from kagflow_host_folders import exists, lacking, settle, sums
from kagflow_host_ground import arrange
from kagflow_host_jobs import follow, newest, said, start, status
from kagflow_host_look import packages, probe

MARK = "kagflow-host:"
ACTIONS = (
    *(probe, packages),
    *(exists, lacking, settle, sums, arrange),
    *(start, status, follow, newest, said),
)


def main(request: Mapping[str, Any]) -> None:
    """Answer one request {do, with} with one marked line of JSON."""
    action = {one.__name__: one for one in ACTIONS}[request["do"]]
    try:
        answer: dict[str, Any] = {"answer": action(**request["with"])}
    except Refused as refused:
        answer = {"refused": refused.kind, "text": refused.text}
    except OSError as error:
        text = f"{error.filename or 'this host'}: {error.strerror or error}"
        answer = {"refused": "os", "text": text}
    sys.stdout.write(f"{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()
