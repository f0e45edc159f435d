"""Run the loopback Hub by hand: `python tests/hub_server --port 0 --root DIR`, then paste what it prints."""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.hub_server import HubServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="where repositories are kept; they survive a restart")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--user", default="alice")
    parser.add_argument("--token", default="", help="default: a new one, printed")
    parser.add_argument("--xet", action="store_true", help="speak Xet instead of LFS")
    arguments = parser.parse_args()
    with HubServer(arguments.root, port=arguments.port, xet=arguments.xet) as hub:
        token = hub.add_user(arguments.user, token=arguments.token)
        print(f"export HF_ENDPOINT={hub.endpoint}\nexport HF_TOKEN={token}")
        if not arguments.xet:
            print("export HF_HUB_DISABLE_XET=1")
        print(f"# a Hub for user {arguments.user!r}; Ctrl-C stops it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print("\n# stopped", file=sys.stderr)


if __name__ == "__main__":
    main()
