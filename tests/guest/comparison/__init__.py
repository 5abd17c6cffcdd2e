"""router-agent and VPP's own netlink listener (linux-nl), side by side on one machine.

Each contender gets a fresh VPP of the same binary with linux-cp's pairs, the same table in the same kernel
and the same steps in the same order. What counts is what VPP forwards by afterwards, prefix by prefix,
against the kernel.

    routes.py      two sets of routes, and what they differ in
    kernel.py      the table in the kernel: written as zebra would, and read
    forwarding.py  what VPP forwards by, whoever wrote it
    bed.py         namespaces, cables, VPP, its ports and pairs
    contenders.py  who keeps VPP as the kernel is, and how each is configured
    trial.py       one step: do it, wait until VPP is right, measure
    steps.py       the steps
    cases.py       single prefixes with metrics, multipath and types
    report.py      the tables, in a terminal and in docs/comparison.md
"""
