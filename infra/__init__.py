"""What is around the functions: local emulation, manifests."""
