"""What a router is like at one moment, kept as JSON, and what has changed between two such moments.

take.py ──► sources/*.py     each asks one part of the router, and says why when it cannot be asked
   │
   ▼
model.py   `Snapshot` ──► store.py   kept on the host, the oldest removed
   │
   ▼
difference.py ──► rules/*.py     what changed, and whether it is within `tolerances.Tolerances`
"""
