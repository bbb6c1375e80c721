"""Releases that are container images in a registry."""
