"""Traffic checks: scenario → generators, counters → judgement → measurements → report.

`measurements.check.run_check` is the whole way; `generators.background.BackgroundTraffic` sends while
something else is done.
"""
