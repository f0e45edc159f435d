"""A Hub on this machine: enough of the real one that the real `huggingface_hub` client cannot tell.

    with HubServer(root) as hub:
        token = hub.add_user("alice")
        api = HfApi(endpoint=hub.endpoint, token=token)

Reading order: `store` (repositories, commits, blobs), `faults` (what goes wrong on purpose, and the request log),
`call` (the table of endpoints), `repos`, `contents`, `commits`, `large_files`, `job_endpoints` (one function per
endpoint), `server` (HTTP). By hand: `python tests/hub_server --root DIR`. It refuses what the Hub refuses and never
writes a token anywhere. Not here: pull requests, spaces that run, search.
"""

from tests.hub_server.faults import Fault, Request
from tests.hub_server.server import HubServer
from tests.hub_server.store import Refusal

__all__ = ["Fault", "HubServer", "Refusal", "Request"]
