"""What the web process is kept from, read for it: FRR's sessions and paths, the kernel's routes and ports."""
