"""Traffic generators behind one interface, `generator.Generator`. They send and count; they judge nothing."""
