"""The Jobs endpoints, over `jobs`."""

from __future__ import annotations

from tests.hub_server.call import Call, Reply, route
from tests.hub_server.jobs import HARDWARE
from tests.hub_server.store import Refusal


@route("GET", "/api/jobs/hardware")
def jobs_hardware(call: Call) -> Reply:
    return Reply(HARDWARE)


def _job_namespace(call: Call) -> str:
    namespace, user = call.part["namespace"], call.signed_in()
    if namespace not in (user.name, *user.orgs):
        raise Refusal(403, f"You don't have access to the jobs of {namespace}")
    return namespace


@route("POST", "/api/jobs/(?P<namespace>[^/]+)")
def run_job(call: Call) -> Reply:
    if call.signed_in().role != "write":
        raise Refusal(403, "A token with write rights is needed to run a job")
    return Reply(call.hub.jobs.create(_job_namespace(call), call.json()).as_json())


@route("GET", "/api/jobs/(?P<namespace>[^/]+)")
def list_jobs(call: Call) -> Reply:
    return Reply(call.hub.jobs.listing(_job_namespace(call), call.query))


@route("GET", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)")
def inspect_job(call: Call) -> Reply:
    return Reply(call.hub.jobs.get(_job_namespace(call), call.part["job"]).as_json())


@route("POST", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)/cancel")
def cancel_job(call: Call) -> Reply:
    job = call.hub.jobs.get(_job_namespace(call), call.part["job"])
    call.hub.jobs.set_stage(job, "CANCELED")
    return Reply(job.as_json())


@route("GET", "/api/jobs/(?P<namespace>[^/]+)/(?P<job>[^/]+)/logs")
def job_logs(call: Call) -> Reply:
    job = call.hub.jobs.get(_job_namespace(call), call.part["job"])
    tail = int(call.query.get("tail", ["0"])[0]) or None
    return Reply(call.hub.jobs.events(job, tail), headers={"Content-Type": "text/event-stream"})
