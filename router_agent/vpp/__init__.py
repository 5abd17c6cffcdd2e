"""VPP: sessions over its binary API, the bulk route codec, ports, and a private process for lab and tests."""
