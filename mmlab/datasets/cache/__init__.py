"""The dataset cache: download, convert, simulate and open datasets."""
