"""``python -m router_agent.lab``; see `router_agent.lab.run`."""

import sys

from router_agent.lab.run import main

sys.exit(main())
