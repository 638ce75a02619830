"""The peers that are measured in this process, and the sources of those in other languages."""
