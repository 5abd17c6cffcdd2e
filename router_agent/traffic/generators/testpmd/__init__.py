"""DPDK's test program as a generator: paced source, sink and reflector on memif, af_packet and VFIO ports."""
