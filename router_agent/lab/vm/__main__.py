"""``python -m router_agent.lab.vm``; see `router_agent.lab.vm.run`."""

import sys

from router_agent.lab.vm.run import main

sys.exit(main())
