"""``python -m router_agent.lab.containers``; see `router_agent.lab.containers.run`."""

import sys

from router_agent.lab.containers.run import main

sys.exit(main())
