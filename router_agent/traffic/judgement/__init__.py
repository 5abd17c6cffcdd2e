"""What became of the packets, and what that means: ledger, port proof, verdict."""
