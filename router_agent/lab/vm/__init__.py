"""The virtual POP host: Debian with NICs, an IOMMU and huge pages, built by the unmodified playbooks."""
