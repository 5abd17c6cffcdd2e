"""Follow BGP routes into a VPP or kernel FIB, keep the FIB true, and prove it with traffic."""

__version__ = "0.1.0"
