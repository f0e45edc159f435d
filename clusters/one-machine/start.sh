#!/bin/bash
# One machine as a cluster: a Ray head that takes jobs, on this machine alone, by token only.
#
#   clusters/one-machine/start.sh                  needs the extra: pip install "lerobot-ray[cluster]"
#   python -m lerobot_ray.train … --ray.address=auto
#   ray stop                                       ends every Ray process of this user on this machine
#
# There is nothing to set. On a single machine the head has to do the work as well.
set -euo pipefail

export RAY_AUTH_MODE=token
ray get-auth-token --generate > /dev/null        # written to ~/.ray/auth_token unless there is one
chmod 600 ~/.ray/auth_token
ray start --head --dashboard-host=127.0.0.1 --disable-usage-stats
cat <<'TEXT'

Ray runs. In the shells you work in:
  export RAY_AUTH_MODE=token RAY_ADDRESS=auto RAY_API_SERVER_ADDRESS=http://127.0.0.1:8265
TEXT
