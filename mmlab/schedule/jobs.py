"""Jobs of a Ray cluster: commands that its head runs, and that go on without their submitter."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobSubmissionClient

from mmlab.errors import UserError
from mmlab.schedule.cluster_address import TOKEN_ADVICE, ensure_token

#: Seconds in which the dashboard has to answer at first, and later.
_TIMEOUT, _LATER_TIMEOUT = 8.0, 60.0
#: Seconds for which the dashboard may be silent while a log is followed.
_MAX_SILENCE = 60.0
#: Seconds that a stopped job has to close its runs. Ray's default of 3 is too short.
_STOP_SECONDS = 60
_INSTALL = "pip install 'mmlab[cluster]'"
# Ray tells of every package and connection.
for _name in ("job.sdk", "dashboard_sdk"):
    logging.getLogger(f"ray.dashboard.modules.{_name}").setLevel(logging.WARNING)
logging.getLogger("ray._private.runtime_env.packaging").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Job:
    """State of a job.

    Attributes
    ----------
    name
        Its submission id.
    status
        PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
    exit_code
        That of its command, 130 if it was stopped, 75 if it was lost; None while it runs.
    message
        What Ray says of it, unless its command has ended.
    """

    name: str
    status: str
    exit_code: int | None
    message: str

    @property
    def has_failed(self) -> bool:
        """Whether it ended before its command did, or with an error."""
        return self.exit_code not in (None, 0)


class JobLostError(Exception):
    """The dashboard no longer answers; the job may go on."""


class _Client(JobSubmissionClient):
    """Ray's client, which would wait for ever for a dashboard that does not answer."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=_LATER_TIMEOUT, **options)


class Jobs:
    """The jobs of the cluster whose dashboard is at an address, ``http(s)://HOST:PORT``.

    Raises
    ------
    UserError
        The address is none, no dashboard responds there, or it requires another token.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        _require_dashboard(self.address)
        # Ray would prefer these to the address that it is given.
        for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
            os.environ.pop(name, None)
        ensure_token()
        try:
            self._client = _Client(self.address, verify=os.environ.get("REQUESTS_CA_BUNDLE", True))
            self._client.list_jobs()
        except AuthenticationError as error:
            raise UserError(
                f"the Ray cluster at {address} requires the token of its head: {TOKEN_ADVICE}."
            ) from error
        except (RuntimeError, ConnectionError) as error:
            raise UserError(
                f"the Ray dashboard at {address} cannot run jobs: {_first_line(error)}. Its head "
                f"and this machine need Ray's packages for that: {_INSTALL}."
            ) from error

    def find(self, name: str) -> Job:
        """Return a job.

        Raises
        ------
        UserError
            There is no such job.
        """
        found = {job.name: job for job in self.all()}
        if name not in found:
            raise UserError(
                f"the Ray cluster at {self.address} has no job {name!r}; it has: "
                f"{', '.join(found) or 'none'}."
            )
        return found[name]

    def all(self) -> list[Job]:
        """Return the jobs that were submitted to the cluster."""
        return [_job(details) for details in self._client.list_jobs() if details.submission_id]

    def last_attempt(self, name: str) -> Job | None:
        """Return the last attempt at a job; None if there is none."""
        attempts = {_attempt(name, job.name): job for job in self.all()}
        attempts.pop(0, None)
        return attempts[max(attempts)] if attempts else None

    def start(self, name: str, entrypoint: str, folder: Path) -> tuple[Job, bool]:
        """Start a job unless it runs or has succeeded; a failed or stopped one is started again.

        Parameters
        ----------
        name
            Name of the job; further attempts are called NAME-2, NAME-3, ...
        entrypoint
            Shell command that the head runs.
        folder
            Folder whose contents are sent to the head: the working directory of the command.

        Returns
        -------
        The job, and whether it was started.
        """
        last = self.last_attempt(name)
        if last is not None and not last.has_failed:
            return last, False
        number = 1 if last is None else _attempt(name, last.name) + 1
        attempt = name if number == 1 else f"{name}-{number}"
        environment = {
            "working_dir": str(folder),
            "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS)},
        }
        try:
            self._client.submit_job(
                entrypoint=entrypoint, submission_id=attempt, runtime_env=environment
            )
        except RuntimeError as error:
            started = self.last_attempt(name)
            if started is None or started.name != attempt:
                raise UserError(
                    f"the Ray cluster at {self.address} did not take the job: {_first_line(error)}."
                ) from error
            return started, False  # another submitter was faster
        return self.find(attempt), True

    def stop(self, name: str) -> bool:
        """Stop a job; return whether it was running."""
        self.find(name)
        return bool(self._client.stop_job(name))

    def follow(self, name: str, write: Callable[[str], None]) -> Job:
        """Write the log of a job from its beginning, as it grows, and return the job at its end.

        Raises
        ------
        JobLostError
            The dashboard has not answered for a minute.
        """
        written, heard = 0, time.monotonic()
        while True:
            try:
                written = asyncio.run(self._tail(name, written, write))
                job = self.find(name)
                if job.exit_code is not None:
                    return job
                heard = time.monotonic()
            except Exception as error:  # of many types
                if time.monotonic() - heard > _MAX_SILENCE:
                    raise JobLostError(_first_line(error)) from error
            time.sleep(1)

    async def _tail(self, name: str, written: int, write: Callable[[str], None]) -> int:
        """Write what a log has beyond ``written`` characters; return how many it has."""
        length = 0
        async for text in self._client.tail_job_logs(name):
            new = text[max(written - length, 0) :]
            length += len(text)
            if new:
                write(new)
                written = length
        return max(written, length)


def _job(details: JobDetails) -> Job:
    code = details.driver_exit_code
    status = str(details.status.value)
    if code is not None and code < 0:
        code = 128 - code
    if code is None and details.status.is_terminal():
        code = {"SUCCEEDED": 0, "STOPPED": 130}.get(status, 75)
    of_ray = details.message if details.message and details.driver_exit_code is None else ""
    return Job(str(details.submission_id), status, code, of_ray.partition("\n")[0])


def _attempt(name: str, job: str) -> int:
    """Return which attempt at ``name`` a job is, from 1; 0 if it is none."""
    if job == name:
        return 1
    number = job.removeprefix(f"{name}-")
    return int(number) if number != job and number.isdecimal() else 0


def _require_dashboard(address: str) -> None:
    if not address.startswith(("http://", "https://")):
        raise UserError(
            f"--address {address!r} must be that of the dashboard of a Ray cluster, such as "
            "http://10.0.0.1:8265."
        )
    try:
        response = requests.get(f"{address}/api/version", timeout=_TIMEOUT)
        # Without a token, the status is 401.
        if response.status_code not in (401, 403) and "ray_version" not in response.text:
            raise UserError(f"what responds at {address} is not the dashboard of a Ray cluster.")
    except requests.exceptions.SSLError as error:
        raise UserError(
            f"the certificate of {address} is not trusted. Set REQUESTS_CA_BUNDLE to a file with "
            "the certificate of its authority."
        ) from error
    except (requests.RequestException, UnicodeError) as error:
        raise UserError(
            f"no Ray dashboard responds at {address}. Start one with `ray start --head` on a "
            f"machine with: {_INSTALL}."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(".")
