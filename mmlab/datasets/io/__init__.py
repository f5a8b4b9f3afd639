"""Read and check ``.h5ad`` files and AnnData objects."""
