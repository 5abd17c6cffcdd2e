"""Traffic checks: scenario → generator → search → ledger → verdict → report.

`check.run_check` is the whole way; `background.BackgroundTraffic` sends while something else is done.
"""
