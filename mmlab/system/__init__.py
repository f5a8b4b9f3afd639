"""The machine: files, memory, threads, devices, versions of software."""
